/** Bitstamp: orders (`live_orders`) and price levels (`diff_order_book`). */
import { near, pairs, priceText, START_MS, seeded, sides, sizeText } from './frames.js'

const PAIR = 'btcusd'
const MIDDLE = 7_940_012
const ORDERS = 4000

const hex = (value, digits) => value.toString(16).padStart(digits, '0')

/** An id of an event: its microseconds, and its place among those of one millisecond. */
function eventId(ms, place) {
  const moment = hex(ms * 1000, 16)
  return `${moment.slice(0, 8)}-${moment.slice(8, 12)}-${moment.slice(12)}-0000-${hex(place + 257, 6)}000020`
}

/** Created, changed and deleted orders, each with the id of the event before. The first one is in the image already. */
function orderFrames(count) {
  const random = seeded(5)
  const orders = []
  let lastId = 2_046_839_978_799_111
  let ms = START_MS
  let place = 0
  let before = eventId(ms - 3, 0)
  const make = spread => {
    lastId += 1 + near(random, 5000)
    const isAsk = random() < 0.5
    const amount = sizeText(random, 8)
    return { id: lastId, isAsk, price: priceText(MIDDLE, isAsk, near(random, spread), 2), amount, first: amount }
  }
  const frames = []
  const tell = (event, { id, isAsk, price, amount, first }) => {
    const step = frames.length === 1 ? 2 : near(random, 8)
    ms += step
    place = step === 0 ? place + 1 : 0
    const own = eventId(ms, place)
    const traded = ((Math.round(Number(first) * 1e8) - Math.round(Number(amount) * 1e8)) / 1e8).toFixed(8)
    const data = {
      id,
      id_str: String(id),
      order_type: isAsk ? 1 : 0,
      order_subtype: 5,
      datetime: String(Math.floor(ms / 1000)),
      microtimestamp: `${ms}000`,
      amount: Number(amount),
      amount_str: amount,
      amount_traded: amount === first ? '0' : traded,
      amount_at_create: first,
      price: Number(price),
      price_str: price,
      is_liquidation: false
    }
    const chain = { event_id: own, pre_event_id: before, order_source: 'orderbook' }
    frames.push(JSON.stringify({ data, channel: `live_orders_${PAIR}`, event, ...chain }))
    before = own
  }
  for (let n = 0; n < ORDERS; n++) orders.push(make(2000))
  tell('order_created', orders[orders.length - 1])
  const image = imageOf(ms + 1, isAsk =>
    orders
      .filter(order => order.isAsk === isAsk)
      .sort((a, b) => (Number(a.price) - Number(b.price)) * (isAsk ? 1 : -1))
      .map(({ price, amount, id }) => [price, amount, String(id)])
  )
  while (frames.length < count) {
    const kind = random()
    if (orders.length < ORDERS * 0.95 || (kind < 0.47 && orders.length < ORDERS * 1.05)) {
      orders.push(make(80))
      tell('order_created', orders[orders.length - 1])
      continue
    }
    const at = Math.max(0, orders.length - 1 - near(random, random() < 0.9 ? 150 : 1500))
    const order = orders[at]
    if (kind > 0.94) {
      order.amount = (Math.ceil(Number(order.amount) * 1e8 * (0.3 + random() * 0.7)) / 1e8).toFixed(8)
      tell('order_changed', order)
      continue
    }
    orders[at] = orders[orders.length - 1]
    orders.pop()
    // Some are gone because nothing is left of them.
    tell('order_deleted', random() < 0.06 ? { ...order, amount: '0' } : order)
  }
  return { frames, records: count - 1, image }
}

/** A book of REST as it was within a millisecond. */
function imageOf(ms, rows) {
  const times = { timestamp: String(Math.floor(ms / 1000)), microtimestamp: `${ms}234` }
  return JSON.stringify({ ...times, bids: rows(false), asks: rows(true) })
}

/** What changed within some 100 ms of a book of 2000 + 2000 levels. The first frame is in the image already. */
function levelFrames(count) {
  const random = seeded(6)
  const book = sides({ random, least: 1900, most: 2100, reach: 40, make: () => sizeText(random, 8) })
  let us = START_MS * 1000
  const side = isAsk => (isAsk ? book.ask : book.bid)
  const row = (isAsk, place) => [priceText(MIDDLE, isAsk, place, 2), side(isAsk).values.get(place) ?? '0.00000000']
  const frames = []
  const tell = () => {
    const total = 1 + near(random, 7)
    const asks = Math.round(random() * total)
    const rows = isAsk =>
      pairs(
        side(isAsk)
          .changes(isAsk ? asks : total - asks)
          .map(place => row(isAsk, place))
      )
    const times = `"timestamp":"${Math.floor(us / 1e6)}","microtimestamp":"${us}"`
    const data = `{${times},"bids":${rows(false)},"asks":${rows(true)}}`
    frames.push(`{"data":${data},"channel":"diff_order_book_${PAIR}","event":"data"}`)
    us += 80_000 + near(random, 30_000)
  }
  tell()
  const image = imageOf(START_MS + 1, isAsk => side(isAsk).places.map(place => row(isAsk, place)))
  while (frames.length < count) tell()
  return { frames, records: count - 1, image }
}

const dialect = {
  message(peer, { event, data }) {
    if (event === 'bts:heartbeat') peer.answer({ event, channel: '', data: { status: 'success' } })
    else if (event === 'bts:subscribe') {
      peer.answer({ event: 'bts:subscription_succeeded', channel: data.channel, data: {} })
      if (!data.channel.startsWith('live_trades')) peer.lead()
    } else return false
    return true
  },
  rest: path => (path.startsWith(`/api/v2/order_book/${PAIR}/?group=`) ? 'image' : undefined)
}

const args = ['--exchange', 'bitstamp', '--symbol', PAIR]

/** The rows of the exchange. */
export const bitstamp = {
  'bitstamp-l3': { title: 'Bitstamp `live_orders`', args: [...args, '--level', 'l3'], make: orderFrames, dialect },
  'bitstamp-l2': {
    title: 'Bitstamp `diff_order_book`',
    args: [...args, '--level', 'l2'],
    share: 1 / 2,
    make: levelFrames,
    dialect
  }
}
