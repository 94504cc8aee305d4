import { bitfinex } from './bitfinex.ts'
import type { Exchange } from './exchange.ts'
import { okx } from './okx.ts'

/** Every exchange that can be captured, by id. One line each. */
export const EXCHANGES: Readonly<Record<string, Exchange>> = Object.freeze({
  bitfinex,
  okx
})
