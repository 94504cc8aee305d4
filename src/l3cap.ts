/**
 * The library: reads vaults, rebuilds books. Importing it starts nothing.
 *
 * ```js
 * import { bookAt, openVault, readEvents } from 'l3cap'
 *
 * const vault = openVault('./vault')
 * const { trusted, reason, book } = await bookAt(vault, { symbol: 'BTCUSD', at: '2026-11-20T15:30:00Z' })
 * console.log(trusted ? book.best(false) : reason.message)
 * ```
 */
export { applyEvent, applyUpdate, type BookUpdate, type Misfit } from './book/apply.ts'
export type { BookEvent } from './book/event-line.ts'
export { type Level2, LevelBook, type LevelBookState } from './book/levels.ts'
export { type Order, OrderBook, type OrderBookState, type PriceLevel } from './book/orders.ts'
export { type ErrorCode, L3capError } from './core/errors.ts'
export type { Level, Market } from './core/instrument.ts'
export type {
  EventRecord,
  FrameRecord,
  LevelRow,
  SnapshotRecord,
  StatusRecord,
  TradeRecord,
  UpdateRecord
} from './core/records.ts'
export {
  type BookAt,
  type BookFacts,
  type BookQuery,
  bookAt,
  type Distrust,
  type DistrustKind
} from './replay/book-at.ts'
export type { Damage } from './replay/lines.ts'
export {
  type FrameQuery,
  type InstrumentQuery,
  type LineQuery,
  type Moment,
  openVault,
  type RecordQuery,
  readEvents,
  type TimeQuery,
  type Vault,
  type VaultConnection,
  type VaultHour,
  type VaultInstrument,
  type VaultLine
} from './replay/vault.ts'
