/** Kraken: orders (`level3`) and price levels (`book`), each frame with the true checksum. */
import crc32 from 'crc-32'
import { isoMicros, near, priceText, START_MS, seeded, sides, sizeText } from './frames.js'

const SYMBOL = 'BTC/USD'
const MIDDLE = 794_000
/** Price levels a side that a capture subscribes to, to show 400. */
const DEPTHS = { book: 500, level3: 1000 }
const CHECKSUM_LEVELS = 10
const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'

/** A number as checksums take it: without its point and leading zeros. */
const digits = text => text.replace('.', '').replace(/^0+/, '')

const price = (isAsk, place) => priceText(MIDDLE, isAsk, place, 1)

function sideOf(book, isAsk) {
  return isAsk ? book.ask : book.bid
}

/** The checksum of a book whose levels are lists of sizes, asks first. */
function checksum(book, sizesOf) {
  let text = ''
  for (const isAsk of [true, false]) {
    const side = sideOf(book, isAsk)
    for (let n = 0; n < Math.min(CHECKSUM_LEVELS, side.length); n++) {
      const place = side.places[n]
      const front = digits(price(isAsk, place))
      for (const size of sizesOf(side.values.get(place))) text += front + digits(size)
    }
  }
  return crc32.str(text) >>> 0
}

function frameOf(channel, type, bids, asks, sum, time) {
  return (
    `{"channel":"${channel}","type":"${type}","data":[{"symbol":"${SYMBOL}","bids":[${bids.join()}],"asks":[${asks.join()}],` +
    `"checksum":${sum},"timestamp":"${time}"}]}`
  )
}

/** How many changes a frame tells: mostly one. */
function changesOf(random) {
  const kind = random()
  return kind < 0.68 ? 1 : kind < 0.92 ? 2 : 3
}

/** `book`: an image of 500 + 500 levels; a level that moves into the window is told, one that moves out is not. */
function levelFrames(count) {
  const random = seeded(7)
  const depth = DEPTHS.book
  const book = sides({ random, least: depth + 60, most: depth + 240, reach: 15, make: () => sizeText(random, 8) })
  let us = START_MS * 1000
  const row = (isAsk, place) =>
    `{"price":${price(isAsk, place)},"qty":${sideOf(book, isAsk).values.get(place) ?? '0.00000000'}}`
  const image = isAsk =>
    sideOf(book, isAsk)
      .places.slice(0, depth)
      .map(place => row(isAsk, place))
  const sum = () => checksum(book, size => [size])
  const frames = [frameOf('book', 'snapshot', image(false), image(true), sum(), isoMicros(us))]
  while (frames.length < count) {
    us += 20 + near(random, 20_000)
    const isAsk = random() < 0.5
    const side = sideOf(book, isAsk)
    const edge = side.places[depth - 1]
    const changed = [...new Set(Array.from({ length: changesOf(random) }, () => side.change()))]
    const known = side.rank(edge) + (side.values.has(edge) ? 1 : 0)
    const rows = [...changed.filter(place => place <= edge), ...side.places.slice(known, depth)].map(p => row(isAsk, p))
    if (rows.length === 0) continue
    frames.push(frameOf('book', 'update', isAsk ? [] : rows, isAsk ? rows : [], sum(), isoMicros(us)))
  }
  return { frames, records: count - 1 }
}

/** An order id: `O6ZQNQ-BXL4E-5WGINO`. */
function orderId(random) {
  const word = length => Array.from({ length }, () => LETTERS[Math.floor(random() * 32)]).join('')
  return `O${word(5)}-${word(5)}-${word(6)}`
}

/** `level3`: an image of 1000 + 1000 levels of orders; the window as that of levels. */
function orderFrames(count) {
  const random = seeded(8)
  const depth = DEPTHS.level3
  let us = START_MS * 1000
  const moment = () => `${isoMicros(us).slice(0, -1)}${String(Math.floor(random() * 1000)).padStart(3, '0')}Z`
  const order = () => ({ id: orderId(random), size: sizeText(random, 8), time: moment() })
  const make = () => Array.from({ length: 1 + near(random, 0.9) }, order)
  const book = sides({ random, least: depth + 60, most: depth + 240, reach: 15, make })
  const row = (isAsk, place, { id, size, time }, event) =>
    `{${event ? `"event":"${event}",` : ''}"order_id":"${id}","limit_price":${price(isAsk, place)},"order_qty":${size},"timestamp":"${time}"}`
  const whole = (isAsk, places, event) =>
    places.flatMap(place =>
      sideOf(book, isAsk)
        .values.get(place)
        .map(each => row(isAsk, place, each, event))
    )
  const image = isAsk => whole(isAsk, sideOf(book, isAsk).places.slice(0, depth))
  const sum = () => checksum(book, orders => orders.map(({ size }) => size))
  const frames = [frameOf('level3', 'snapshot', image(false), image(true), sum(), moment())]

  /** Takes an order out of its level. */
  const take = (side, place, at) => {
    const orders = side.values.get(place)
    const [gone] = orders.splice(at, 1)
    if (orders.length === 0) side.remove(place)
    return gone
  }
  /** Puts an order at the back of a level. */
  const put = (side, place, each) => {
    if (side.values.has(place)) side.values.get(place).push(each)
    else side.set(place, [each])
  }
  /** One thing happens to one order; its entry, if the window shows it. */
  const act = isAsk => {
    const side = sideOf(book, isAsk)
    const kind = random()
    const isFull = side.length >= depth + 240
    if (side.length <= depth + 60 || (!isFull && kind < 0.46)) {
      const place = random() < 0.4 ? side.pick() : side.free()
      const each = order()
      put(side, place, each)
      return [row(isAsk, place, each, 'add')]
    }
    const place = side.pick()
    const orders = side.values.get(place)
    const at = Math.floor(random() * orders.length)
    if (isFull || kind < 0.9) {
      const gone = take(side, place, at)
      return [row(isAsk, place, { ...gone, size: '0.00000000', time: moment() }, 'delete')]
    }
    if (kind < 0.96) {
      // A part of it is filled, which leaves it in its place.
      orders[at] = { ...orders[at], size: (Number(orders[at].size) * 0.5 + 1e-8).toFixed(8), time: moment() }
      return [row(isAsk, place, orders[at], 'modify')]
    }
    const each = { ...take(side, place, at), time: moment() }
    const to = side.free()
    put(side, to, each)
    return [row(isAsk, to, each, 'modify')]
  }
  while (frames.length < count) {
    us += 20 + near(random, 5000)
    const isAsk = random() < 0.5
    const side = sideOf(book, isAsk)
    const edge = side.places[depth - 1]
    const rows = Array.from({ length: changesOf(random) }, () => act(isAsk)).flat()
    const known = side.rank(edge) + (side.values.has(edge) ? 1 : 0)
    rows.push(...whole(isAsk, side.places.slice(known, depth), 'add'))
    frames.push(frameOf('level3', 'update', isAsk ? [] : rows, isAsk ? rows : [], sum(), moment()))
  }
  return { frames, records: count - 1 }
}

const TIMES = { time_in: isoMicros(START_MS * 1000), time_out: isoMicros(START_MS * 1000 + 53) }

const dialect = {
  open(peer) {
    const data = [{ api_version: 'v2', connection_id: 1, system: 'online', version: '2.0.10' }]
    peer.answer({ channel: 'status', type: 'update', data })
  },
  message(peer, { method, params, req_id }) {
    if (method === 'ping') peer.answer({ method: 'pong', req_id, ...TIMES })
    else if (method === 'subscribe') {
      const { channel, symbol, token: _, ...rest } = params
      const result = { channel, ...rest, ...(symbol ? { symbol: symbol[0] } : {}) }
      peer.answer({ method, req_id, result, success: true, ...TIMES })
      if (!(channel in DEPTHS)) return true
      if (params.depth !== DEPTHS[channel])
        throw new Error(`kraken: the frames are of another depth than ${params.depth}`)
      peer.play()
    } else return false
    return true
  },
  rest(path) {
    if (path !== '/0/private/GetWebSocketsToken') return undefined
    return JSON.stringify({ error: [], result: { token: 'token-for-benchmarks', expires: 900 } })
  }
}

const args = ['--exchange', 'kraken', '--symbol', SYMBOL]
const env = { KRAKEN_API_KEY: 'key-for-benchmarks', KRAKEN_API_SECRET: 'c2VjcmV0LWZvci1iZW5jaG1hcmtz' }

/** The rows of the exchange. */
export const kraken = {
  'kraken-l3': {
    title: 'Kraken `level3`',
    args: [...args, '--level', 'l3'],
    env,
    make: orderFrames,
    dialect
  },
  'kraken-l2': { title: 'Kraken `book`', args: [...args, '--level', 'l2'], make: levelFrames, dialect }
}
