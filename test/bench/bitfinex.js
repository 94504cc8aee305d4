/** Bitfinex: raw books and books of price levels. */
import crc32 from 'crc-32'
import { near, priceText, START_MS, seeded, sides } from './frames.js'

/** Orders a side that the exchange shows. */
const WINDOW = 250

/** Raw book: an image of 240 + 240 orders, then single orders near the best price; sequence and time as sent. */
function orderFrames(count) {
  const random = seeded(1)
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
  const frames = [`[1001,${JSON.stringify([...bids, ...asks])},1,${START_MS}]`]
  const ids = [...orders.keys()]
  const counts = { bid: 240, ask: 240 }
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
      counts[row[2] > 0 ? 'bid' : 'ask']--
    } else if (ids.length > 495) continue
    else {
      const isAsk = random() < 0.5
      // A side is never deeper than the window: that would be a wrong book.
      const isFull = counts[isAsk ? 'ask' : 'bid'] === WINDOW
      row = place(isAsk !== isFull)
      counts[row[2] > 0 ? 'bid' : 'ask']++
      ids.push(row[0])
    }
    frames.push(`[1001,${JSON.stringify(row)},${frames.length + 1},${START_MS + frames.length}]`)
  }
  return { frames, records: count - 1 }
}

const MIDDLE = 79400
const CHECKSUM_ROWS = 25
/** One checksum for so many frames: one in 2.5 s. */
const CHECKSUM_EVERY = 100

/** Levels: an image of 240 + 240, then single levels; now and then the checksum of the 25 best ones. */
function levelFrames(count) {
  const random = seeded(2)
  const make = () => [1 + near(random, 2), (Math.floor(random() ** 3 * 2e8) + 1000) / 1e8]
  const book = sides({ random, least: 230, most: 250, reach: 40, make })
  const row = (isAsk, place, level) =>
    `[${priceText(MIDDLE, isAsk, place, 0)},${level ? `${level[0]},${isAsk ? '-' : ''}${level[1]}` : `0,${isAsk ? -1 : 1}`}]`
  const rows = isAsk => {
    const side = isAsk ? book.ask : book.bid
    return side.places.map(place => row(isAsk, place, side.values.get(place)))
  }
  const checksum = () => {
    const cells = []
    for (let n = 0; n < CHECKSUM_ROWS; n++) {
      for (const isAsk of [false, true]) {
        const side = isAsk ? book.ask : book.bid
        const place = side.places[n]
        cells.push(`${priceText(MIDDLE, isAsk, place, 0)}:${isAsk ? '-' : ''}${side.values.get(place)[1]}`)
      }
    }
    return crc32.str(cells.join(':'))
  }
  const frames = [`[1001,[${[...rows(false), ...rows(true)].join()}],1,${START_MS}]`]
  let records = 0
  while (frames.length < count) {
    const tail = `${frames.length + 1},${START_MS + frames.length}]`
    if (frames.length % CHECKSUM_EVERY === 0) {
      frames.push(`[1001,"cs",${checksum()},${tail}`)
      continue
    }
    const isAsk = random() < 0.5
    const side = isAsk ? book.ask : book.bid
    const place = side.change()
    frames.push(`[1001,${row(isAsk, place, side.values.get(place))},${tail}`)
    records++
  }
  return { frames, records }
}

const dialect = {
  open: peer => peer.answer({ event: 'info', version: 2, platform: { status: 1 } }),
  message(peer, message) {
    if (message.event === 'conf') peer.answer({ event: 'conf', status: 'OK', flags: message.flags })
    else if (message.event === 'ping') peer.answer({ event: 'pong', ts: START_MS, cid: message.cid })
    else if (message.event === 'subscribe') {
      const chanId = message.channel === 'book' ? 1001 : 1002
      peer.answer({ ...message, event: 'subscribed', chanId })
      if (chanId === 1001) peer.play()
    } else return false
    return true
  }
}

const args = ['--exchange', 'bitfinex', '--symbol', 'BTCUSD']

/** The rows of the exchange. */
export const bitfinex = {
  'bitfinex-l3': { title: 'Bitfinex R0', args: [...args, '--level', 'l3'], make: orderFrames, dialect },
  'bitfinex-l2': { title: 'Bitfinex P0', args: [...args, '--level', 'l2'], make: levelFrames, dialect }
}
