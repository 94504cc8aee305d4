import { binance } from './binance.js'
import { bitfinex } from './bitfinex.js'
import { bitstamp } from './bitstamp.js'
import { coinbase } from './coinbase.js'
import { huobi } from './huobi.js'
import { kraken } from './kraken.js'
import { okx } from './okx.js'

/**
 * What is measured, by name:
 *
 * - `title`: how the table calls it;
 * - `args`, `env`: arguments and environment variables of the capture;
 * - `share`: how many of the frames asked for are played, as frames of many levels cost more; 1 unless said;
 * - `rate`: frames a second; the same share of the usual rate unless said;
 * - `make(count)`: the traffic: `frames`, the `image` where it comes apart from them, and `records`, the number of frames
 *   that must each have left a record of its own behind;
 * - `dialect`: how the exchange answers: `open(peer)`, `message(peer, message, traffic)`, which is false for what it does not
 *   know, `rest(path)`, which is an answer or `image`, and `encode(text)`, where its messages are not plain text.
 */
export const ROWS = { ...bitfinex, ...okx, ...coinbase, ...bitstamp, ...kraken, ...binance, ...huobi }
