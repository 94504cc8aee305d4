/** OKX: price levels. */
import { seeded } from './frames.js'

/** `books`: an image of 400 + 400 levels, then updates of about 10 levels with a chain of numbers. */
function levelFrames(count) {
  const random = seeded(2)
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
  return { frames, records: count - 1 }
}

const dialect = {
  message(peer, message) {
    if (message.op !== 'subscribe') return false
    for (const arg of message.args) peer.answer({ id: message.id, event: 'subscribe', arg, connId: 'a' })
    if (message.args.some(({ channel }) => channel === 'books')) peer.play()
    return true
  }
}

/** The rows of the exchange. */
export const okx = {
  'okx-l2': {
    title: 'OKX `books`',
    args: ['--exchange', 'okx', '--symbol', 'BTC-USDT-SWAP'],
    share: 1 / 2,
    rate: 20_000,
    make: levelFrames,
    dialect
  }
}
