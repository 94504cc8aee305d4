/** HTX (Huobi): price levels, every frame compressed. */
import { gzipSync } from 'node:zlib'
import { near, START_MS, seeded, sides } from './frames.js'

const TOPIC = 'market.btcusdt.mbp.400'
const MIDDLE = 913_861
const FIRST_NUMBER = 109_409_288_130

/** A number as the exchange prints it: `0.0`, `1.0`, `0.0622`, `2.0E-4`. */
function printed(value) {
  if (value !== 0 && value < 1e-3) {
    const [mantissa, exponent] = value.toExponential().split('e')
    return `${mantissa.includes('.') ? mantissa : `${mantissa}.0`}E${exponent}`
  }
  return Number.isInteger(value) ? `${value}.0` : String(value)
}

/** `mbp.400`: what differs from the book of 100 ms before, of at most 400 + 400 levels. */
function levelFrames(count) {
  const random = seeded(11)
  const make = () => Math.round(Math.max(1e-6, random() ** 4 * 3) * 1e6) / 1e6
  const book = sides({ random, least: 370, most: 400, reach: 40, make })
  const rows = (isAsk, places) => {
    const side = isAsk ? book.ask : book.bid
    const price = place => printed((MIDDLE + (isAsk ? place + 1 : -place)) / 100)
    return `[${places.map(place => `[${price(place)},${printed(side.values.get(place) ?? 0)}]`).join()}]`
  }
  let ms = START_MS
  let number = FIRST_NUMBER
  const image = `{"seqNum":${number},"bids":${rows(false, book.bid.places)},"asks":${rows(true, book.ask.places)}}`
  const frames = []
  while (frames.length < count) {
    const previous = number
    number += 1 + near(random, 40)
    ms += 100 + near(random, 3)
    const levels = isAsk => rows(isAsk, (isAsk ? book.ask : book.bid).changes(near(random, 7.5)))
    const tick = `{"seqNum":${number},"prevSeqNum":${previous},"asks":${levels(true)},"bids":${levels(false)}}`
    frames.push(gzipSync(`{"ch":"${TOPIC}","ts":${ms},"tick":${tick}}`))
  }
  // What joins the image is a part of it.
  return { frames, records: count - 1, image }
}

const PING_MS = 5000

const dialect = {
  encode: gzipSync,
  open(peer) {
    const timer = setInterval(() => peer.answer({ ping: Date.now() }), PING_MS)
    peer.socket.on('close', () => clearInterval(timer))
  },
  message(peer, { sub, req, id, pong }, { image }) {
    const ts = START_MS
    if (sub !== undefined) peer.answer({ id, status: 'ok', subbed: sub, ts })
    else if (req === TOPIC) {
      peer.send(gzipSync(`{"id":${JSON.stringify(id)},"rep":"${req}","status":"ok","ts":${ts},"data":${image}}`))
      peer.play()
    } else return pong !== undefined
    return true
  }
}

/** The rows of the exchange. */
export const huobi = {
  'huobi-l2': {
    title: 'HTX `mbp.400`',
    args: ['--exchange', 'huobi', '--symbol', 'btcusdt'],
    share: 1 / 4,
    make: levelFrames,
    dialect
  }
}
