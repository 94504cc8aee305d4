/** Binance: price levels of spot and of perpetuals. */
import { near, pairs, priceText, START_MS, seeded, sides, skewed } from './frames.js'

const SYMBOL = 'BTCUSDT'
const FIRST_ID = 50_093_239_189

/** What differs between the markets. Levels a frame: half of the frames have at most `middle`, some have very many. */
const SPOT = { depth: 5000, decimals: 2, padding: '000000', sizes: 5, sizePadding: '000', middle: 16, spread: 1.2 }
const PERP = { depth: 1000, decimals: 1, padding: '0', sizes: 3, sizePadding: '', middle: 34, spread: 1.15 }
const LEVELS_MAX = 600
const MIDDLE = 61837.6

/** `depthUpdate` events. The first one is in the image already. */
function levelFrames(count, isPerp) {
  const { depth, decimals, padding, sizes, sizePadding, middle, spread } = isPerp ? PERP : SPOT
  const random = seeded(isPerp ? 10 : 9)
  const make = () => Math.max(10 ** -sizes, random() ** 4 * 3).toFixed(sizes)
  const book = sides({ random, least: depth - 50, most: depth, reach: 60, make })
  const middleTicks = Math.round(MIDDLE * 10 ** decimals)
  const zero = (0).toFixed(sizes)
  const side = isAsk => (isAsk ? book.ask : book.bid)
  const row = (isAsk, place) => [
    priceText(middleTicks, isAsk, place, decimals) + padding,
    (side(isAsk).values.get(place) ?? zero) + sizePadding
  ]
  let ms = START_MS
  let last = FIRST_ID
  const frames = []
  const tell = () => {
    const total = skewed(random, middle, spread, LEVELS_MAX)
    const asks = Math.round(total * (0.3 + random() * 0.4))
    const rows = isAsk => {
      const places = side(isAsk).changes(isAsk ? asks : total - asks)
      // Perpetuals tell all levels from the lowest price on, spot each side from its best.
      if (isPerp && !isAsk) places.reverse()
      return pairs(places.map(place => row(isAsk, place)))
    }
    const first = last + 1 + (isPerp ? near(random, 60) : 0)
    const previous = last
    last = first + total + near(random, total)
    const times = isPerp
      ? `"E":${ms + 1},"T":${ms},"s":"${SYMBOL}","ps":"${SYMBOL}","st":1`
      : `"E":${ms},"s":"${SYMBOL}"`
    const numbers = `"U":${first},"u":${last}${isPerp ? `,"pu":${previous}` : ''}`
    frames.push(`{"e":"depthUpdate",${times},${numbers},"b":${rows(false)},"a":${rows(true)}}`)
    ms += 100
  }
  tell()
  const rows = isAsk => side(isAsk).places.map(place => row(isAsk, place))
  const times = isPerp ? { E: ms, T: ms } : {}
  const image = JSON.stringify({ lastUpdateId: last, ...times, bids: rows(false), asks: rows(true) })
  while (frames.length < count) tell()
  return { frames, records: count - 1, image }
}

const dialect = {
  message(peer, { method, params, id }) {
    if (method === 'LIST_SUBSCRIPTIONS') peer.answer({ result: peer.memory.params, id })
    else if (method === 'SUBSCRIBE') {
      peer.memory.params = params
      peer.answer({ result: null, id })
      if (params.some(stream => stream.includes('@depth'))) peer.lead()
    } else return false
    return true
  },
  rest: path => (/^\/f?api\/v\d\/depth\?/.test(path) ? 'image' : undefined)
}

const args = ['--exchange', 'binance', '--symbol', SYMBOL]

/** The rows of the exchange. */
export const binance = {
  'binance-spot': {
    title: 'Binance spot `depth@100ms`',
    args: [...args, '--market', 'spot'],
    share: 1 / 5,
    make: count => levelFrames(count, false),
    dialect
  },
  'binance-perp': {
    title: 'Binance perp `depth@100ms`',
    args: [...args, '--market', 'perp'],
    share: 1 / 10,
    make: count => levelFrames(count, true),
    dialect
  }
}
