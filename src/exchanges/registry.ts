import { binance } from './binance.ts'
import { bitfinex } from './bitfinex.ts'
import { bitstamp } from './bitstamp.ts'
import { coinbase } from './coinbase.ts'
import type { Exchange } from './exchange.ts'
import { huobi } from './huobi.ts'
import { kraken } from './kraken.ts'
import { okx } from './okx.ts'

/** Every exchange that can be captured, by id. One line each. */
export const EXCHANGES: Readonly<Record<string, Exchange>> = Object.freeze({
  binance,
  bitfinex,
  bitstamp,
  coinbase,
  huobi,
  kraken,
  okx
})
