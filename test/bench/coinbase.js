/** Coinbase Exchange: orders as arrays (`level3`), as objects (`full`), and price levels. */
import { isoMicros, near, pairs, priceText, START_MS, seeded, sides, sizeText } from './frames.js'

const PRODUCT = 'BTC-USD'
const MIDDLE = 7_940_012
const FIRST_SEQUENCE = 57_560_479_456
const ORDERS = 10_000

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))

/** An order id in the form of a UUID. */
function uuid(random) {
  const hex = Array.from({ length: 16 }, () => HEX[Math.floor(random() * 256)]).join('')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20)}`
}

/** The messages of one product, without numbers and times; `shows`: whether it changes the book. */
class Product {
  orders = []
  tradeId = 741_000_000
  told = []

  constructor(random) {
    this.random = random
    for (let n = 0; n < ORDERS; n++) this.orders.push(this.order(2000))
  }

  order(spread) {
    const { random } = this
    const isAsk = random() < 0.5
    const price = priceText(MIDDLE, isAsk, near(random, spread), 2)
    return { id: uuid(random), isAsk, price, size: sizeText(random, 8) }
  }

  /** A resting order, mostly a young one; it is the last of the list then. */
  pick() {
    const { orders, random } = this
    const at = Math.max(0, orders.length - 1 - near(random, random() < 0.9 ? 150 : 3000))
    const order = orders[at]
    orders[at] = orders[orders.length - 1]
    orders[orders.length - 1] = order
    return order
  }

  /** The next message. */
  next() {
    while (this.told.length === 0) this.act()
    return this.told.shift()
  }

  act() {
    const { orders, random, told } = this
    const kind = random()
    if (orders.length < ORDERS * 0.95 || (kind < 0.48 && orders.length < ORDERS * 1.05)) {
      const order = this.order(80)
      orders.push(order)
      told.push({ type: 'received', order, isLimit: true }, { type: 'open', order: { ...order }, shows: true })
    } else if (kind < 0.94) {
      const order = this.pick()
      orders.pop()
      told.push({ type: 'done', order, reason: 'canceled', shows: true })
    } else if (kind < 0.97) {
      const order = this.pick()
      const before = order.size
      order.size = sizeText(random, 8)
      told.push({ type: 'change', order: { ...order }, before, shows: true })
    } else this.trade()
  }

  /** A market order that takes from one resting order, or all of it. */
  trade() {
    const { orders, random, told } = this
    const maker = this.pick()
    const units = Math.round(Number(maker.size) * 1e8)
    const isWhole = units === 1 || random() < 0.5
    const taken = isWhole ? units : 1 + Math.floor(random() * (units - 1))
    const size = (taken / 1e8).toFixed(8)
    const taker = { id: uuid(random), isAsk: !maker.isAsk, size }
    const match = { type: 'match', order: { ...maker }, taker, size, tradeId: ++this.tradeId, shows: true }
    told.push({ type: 'received', order: taker }, match)
    if (isWhole) {
      orders.pop()
      told.push({ type: 'done', order: { ...maker, size: '0' }, reason: 'filled' })
    } else maker.size = ((units - taken) / 1e8).toFixed(8)
    told.push({ type: 'done', order: { ...taker, size: '0' }, reason: 'filled' })
  }

  /** The whole book as REST shows it. */
  image(sequence, time) {
    const side = isAsk =>
      this.orders
        .filter(order => order.isAsk === isAsk)
        .sort((a, b) => (Number(a.price) - Number(b.price)) * (isAsk ? 1 : -1))
        .map(({ price, size, id }) => [price, size, id])
    return JSON.stringify({ bids: side(false), asks: side(true), sequence, auction_mode: false, auction: null, time })
  }
}

const sideOf = ({ isAsk }) => (isAsk ? 'sell' : 'buy')

/** A message of `level3`. */
function compact({ type, order, taker, size }, sequence, time) {
  const numbered = cells => JSON.stringify([cells[0], PRODUCT, String(sequence), ...cells.slice(1), time])
  if (type === 'open') return numbered(['open', order.id, sideOf(order), order.price, order.size])
  if (type === 'done') return numbered(['done', order.id])
  if (type === 'change') return numbered(['change', order.id, order.price, order.size])
  if (type === 'match') return numbered(['match', order.id, taker.id, order.price, size])
  return numbered(['noop'])
}

/** A message of `full`. */
function whole({ type, order, isLimit, reason, before, taker, size, tradeId }, sequence, time) {
  const head = { type, side: sideOf(order) }
  const tail = { product_id: PRODUCT, sequence, time }
  if (type === 'match') {
    const ids = { trade_id: tradeId, maker_order_id: order.id, taker_order_id: taker.id }
    return JSON.stringify({ type, ...ids, side: head.side, size, price: order.price, ...tail })
  }
  if (type === 'received') {
    const kind = isLimit ? { size: order.size, price: order.price } : { size: order.size }
    const about = { order_id: order.id, order_type: isLimit ? 'limit' : 'market', ...kind }
    return JSON.stringify({ type, ...about, side: head.side, ...tail })
  }
  if (type === 'open') {
    const { price, id: order_id, size: remaining_size } = order
    return JSON.stringify({ ...head, price, order_id, remaining_size, ...tail })
  }
  if (type === 'done') {
    const rest = order.price === undefined ? {} : { price: order.price, remaining_size: order.size }
    return JSON.stringify({ ...head, order_id: order.id, reason, ...tail, ...rest })
  }
  const prices = { old_price: order.price, new_price: order.price }
  const sizes = { old_size: before, new_size: order.size }
  return JSON.stringify({
    type,
    reason: 'modify_order',
    order_id: order.id,
    side: head.side,
    ...sizes,
    ...prices,
    ...tail
  })
}

/** The messages of one product. The first one is in the image already. */
function orderFrames(count, isFull) {
  const random = seeded(3)
  const product = new Product(random)
  let us = START_MS * 1000
  const frames = []
  let records = 0
  const tell = message => {
    us += 20 + near(random, 400)
    frames.push((isFull ? whole : compact)(message, FIRST_SEQUENCE + frames.length, isoMicros(us)))
  }
  tell({ type: 'received', order: product.order(80), isLimit: true })
  const image = product.image(FIRST_SEQUENCE, isoMicros(us))
  while (frames.length < count) {
    const message = product.next()
    tell(message)
    if (isFull || message.shows) records++
  }
  return { frames, records, image }
}

/** `level2_batch`: an image of 5000 + 5000 levels, then what changed within 50 ms. */
function levelFrames(count) {
  const random = seeded(4)
  const book = sides({ random, least: 4900, most: 5100, reach: 60, make: () => sizeText(random, 8) })
  let us = START_MS * 1000
  const price = (isAsk, place) => priceText(MIDDLE, isAsk, place, 2)
  const rows = isAsk => {
    const side = isAsk ? book.ask : book.bid
    return pairs(side.places.map(place => [price(isAsk, place), side.values.get(place)]))
  }
  const head = type => `{"type":"${type}","product_id":"${PRODUCT}",`
  const frames = [`${head('snapshot')}"asks":${rows(true)},"bids":${rows(false)},"time":"${isoMicros(us)}"}`]
  while (frames.length < count) {
    us += 50_000 + near(random, 2000)
    const total = 1 + near(random, 5.8)
    const asks = Math.round(random() * total)
    const changes = [false, true].flatMap(isAsk => {
      const side = isAsk ? book.ask : book.bid
      const rowOf = place =>
        `["${isAsk ? 'sell' : 'buy'}","${price(isAsk, place)}","${side.values.get(place) ?? '0.00000000'}"]`
      return side.changes(isAsk ? asks : total - asks).map(rowOf)
    })
    frames.push(`${head('l2update')}"changes":[${changes.join()}],"time":"${isoMicros(us)}"}`)
  }
  return { frames, records: count - 1 }
}

const SCHEMA = {
  change: ['type', 'product_id', 'sequence', 'order_id', 'price', 'size', 'time'],
  done: ['type', 'product_id', 'sequence', 'order_id', 'time'],
  match: ['type', 'product_id', 'sequence', 'maker_order_id', 'taker_order_id', 'price', 'size', 'time'],
  noop: ['type', 'product_id', 'sequence', 'time'],
  open: ['type', 'product_id', 'sequence', 'order_id', 'side', 'price', 'size', 'time']
}
const BOOKS = ['level3', 'full', 'level2_batch']

const dialect = {
  open(peer) {
    peer.memory.channels = new Set()
  },
  message(peer, message) {
    if (message.type !== 'subscribe') return false
    const { channels } = peer.memory
    const had = BOOKS.some(name => channels.has(name))
    for (const name of message.channels) channels.add(name)
    const inForce = [...channels].map(name => ({ name, product_ids: [PRODUCT] }))
    peer.answer({ type: 'subscriptions', channels: inForce })
    if (had) return true
    if (channels.has('level3')) peer.answer({ type: 'level3', schema: SCHEMA })
    if (channels.has('level2_batch')) peer.play()
    else if (BOOKS.some(name => channels.has(name))) peer.lead()
    return true
  },
  rest: path => (path === `/products/${PRODUCT}/book?level=3` ? 'image' : undefined)
}

const args = ['--exchange', 'coinbase', '--symbol', PRODUCT]
const env = {
  COINBASE_API_KEY: 'key-for-benchmarks',
  COINBASE_API_SECRET: 'c2VjcmV0LWZvci1iZW5jaG1hcmtz',
  COINBASE_API_PASSPHRASE: 'passphrase-for-benchmarks'
}

/** The rows of the exchange. */
export const coinbase = {
  'coinbase-l3': {
    title: 'Coinbase `level3`',
    args: [...args, '--level', 'l3'],
    env,
    make: count => orderFrames(count, false),
    dialect
  },
  'coinbase-full': {
    title: 'Coinbase `full`',
    args: [...args, '--level', 'l3', '--channel', 'full'],
    env,
    make: count => orderFrames(count, true),
    dialect
  },
  'coinbase-l2': {
    title: 'Coinbase `level2_batch`',
    args: [...args, '--level', 'l2'],
    share: 1 / 2,
    make: levelFrames,
    dialect
  }
}
