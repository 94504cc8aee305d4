/** Prepared traffic of the benchmarks: made from a seed, so that every run plays the same frames. */

/** A small seeded generator of numbers in [0, 1). */
export function seeded(seed) {
  let state = seed >>> 0
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 4294967296
  }
}

/** Bitfinex raw book: an image of 250 + 250 orders, then single orders near the best price; sequence and time as sent. */
export function bitfinexFrames(count, seed = 1) {
  const random = seeded(seed)
  const orders = new Map()
  let id = 243628348659
  const sizeOf = () => (Math.floor(random() * 2e8) + 1000) / 1e8
  const place = isAsk => {
    const price = 79400 + (isAsk ? 1 : -1) * (1 + Math.floor(-Math.log(1 - random()) * 40))
    const amount = sizeOf() * (isAsk ? -1 : 1)
    orders.set(++id, amount)
    return [id, price, amount]
  }
  const bids = Array.from({ length: 240 }, () => place(false)).sort((a, b) => b[1] - a[1])
  const asks = Array.from({ length: 240 }, () => place(true)).sort((a, b) => a[1] - b[1])
  const frames = [`[1001,${JSON.stringify([...bids, ...asks])},1,1788829784405]`]
  const ids = [...orders.keys()]
  while (frames.length < count) {
    const kind = random()
    let row
    if (kind < 0.45 && ids.length > 470) {
      const at = Math.floor(random() * ids.length)
      const gone = ids[at]
      ids[at] = ids[ids.length - 1]
      ids.pop()
      row = [gone, 0, orders.get(gone) > 0 ? 1 : -1]
      orders.delete(gone)
    } else if (ids.length > 495) continue
    else {
      row = place(random() < 0.5)
      ids.push(row[0])
    }
    frames.push(`[1001,${JSON.stringify(row)},${frames.length + 1},${1788829784405 + frames.length}]`)
  }
  return frames
}

/** OKX `books`: an image of 400 + 400 levels, then updates of about 10 levels with a chain of numbers. */
export function okxFrames(count, seed = 2) {
  const random = seeded(seed)
  const level = (isAsk, at, size) => [
    (62010 + (isAsk ? at + 1 : -at) / 10).toFixed(1),
    size,
    '0',
    size === '0' ? '0' : String(1 + Math.floor(random() * 20))
  ]
  const size = () => (random() * 300).toFixed(2)
  const side = (isAsk, length, near) => {
    const places = [
      ...new Set(Array.from({ length }, (_, n) => (near ? Math.min(399, Math.floor(-Math.log(1 - random()) * 30)) : n)))
    ].sort((a, b) => a - b)
    return places.map(at => level(isAsk, at, near && random() < 0.15 ? '0' : size()))
  }
  const frame = (action, length, near, previous, sequence) =>
    `{"arg":{"channel":"books","instId":"BTC-USDT-SWAP"},"action":"${action}","data":[{"asks":${JSON.stringify(side(true, length, near))},` +
    `"bids":${JSON.stringify(side(false, length, near))},"ts":"${1783079411709 + sequence}","checksum":0,"seqId":${sequence},"prevSeqId":${previous}}]}`
  const frames = [frame('snapshot', 400, false, -1, 1)]
  while (frames.length < count)
    frames.push(frame('update', 1 + Math.floor(random() * 8), true, frames.length, frames.length + 1))
  return frames
}
