import type { LevelBook } from '../book/levels.ts'
import type { OrderBook } from '../book/orders.ts'
import type { Instrument, Level, Market } from '../core/instrument.ts'

/** What a feed lets a capture verify. */
export interface Proof {
  /** What one sequence covers: the whole connection, one instrument, or nothing. */
  readonly sequence: 'connection' | 'instrument' | 'none'
  readonly checksum: boolean
}

/** Limits of an exchange; units are in the names. */
export interface Limits {
  /** A book subscription without any frame for longer is mute. */
  readonly silenceMsMax: number
  /** After so much silence of the whole connection a keep-alive is sent. */
  readonly pingMs: number
  /** How long an acknowledgement, a first image or the answer to a keep-alive may take. */
  readonly ackMsMax: number
  /** Instruments of one connection. */
  readonly instrumentsPerSocketMax: number
  readonly connectsPerMinuteMax: number
  readonly connectSpacingMs: number
  /** Larger frames are kept and not read. */
  readonly frameBytesMax: number
  /** Levels or orders a side that the book channel sends. */
  readonly depthMax: number
}

/** Metadata of an instrument in one form for all exchanges; text as sent, null where the exchange has none. */
export interface InstrumentInfo {
  readonly exchange: string
  readonly instId: string
  readonly market: Market
  readonly base: string | null
  readonly quote: string | null
  readonly settleCcy: string | null
  readonly contractValue: string | null
  readonly contractValueCcy: string | null
  readonly multiplier: string | null
  readonly tickSize: string | null
  readonly lotSize: string | null
  readonly minSize: string | null
  readonly status: string | null
  /** The exchange's own entry. */
  readonly raw: unknown
}

/** How an exchange's instrument list is read over REST. */
export interface Catalogue {
  /** Paths to read for the instruments of these symbols; no symbols: for everything. */
  paths(symbols: readonly string[]): string[]
  /** The instruments in the answers, in the order of `paths`. Throws on another format. */
  read(answers: readonly unknown[]): InstrumentInfo[]
}

/** What the engine keeps for one book of one connection; sessions call it while they apply a frame. */
export interface Keeper {
  readonly instrument: Instrument
  /** Whether the book is built and unbroken. */
  readonly live: boolean
  readonly orders: OrderBook
  readonly levels: LevelBook
  /** Starts a full image: the book is empty; `imageOrder` calls follow (L3), or `levels` is filled (L2), then `endImage`. */
  beginImage(sequence: number | null, exchangeTimeMs: number | null): void
  imageOrder(id: string, isAsk: boolean, price: string, size: string): void
  /** L2: `bids` and `asks` are the image's levels as JSON text; they are already in `levels`. */
  endImage(image?: L2Frame): void
  /** Inserts or replaces an order. */
  putOrder(
    id: string,
    isAsk: boolean,
    price: string,
    size: string,
    sequence: number | null,
    exchangeTimeMs: number | null
  ): void
  /** Removes an order; unknown ids are counted and ignored. */
  removeOrder(id: string, sequence: number | null, exchangeTimeMs: number | null): void
  /** L2: an update whose levels the session has put into `levels`. */
  update(frame: L2Frame): void
  /** The exchange's checksum of the book as it is now; 0 and null mean not provided. */
  verify(expected: number | null): void
  /** Continuity is lost. Asks the session for a new image, unless `recover` is false. */
  lose(reason: string, expected: number | string | null, received: number | string | null, recover?: boolean): void
  trade(trade: Trade): void
  /** Something about the subscription that belongs into the status feed. */
  status(event: string, detail: Record<string, unknown>): void
  /** A frame of this instrument that could not be read. */
  malformed(what: string, kind?: 'book' | 'trades'): void
}

/** The parts of an L2 record; `bids` and `asks` are JSON text. */
export interface L2Frame {
  bids: string
  asks: string
  sequence: number | null
  previous: number | null
  checksum: number | null
  exchangeTimeMs: number | null
}

/** One trade: text as sent. `metadata` is JSON text of an object. */
export interface Trade {
  readonly id: string
  readonly isSell: boolean
  readonly price: string
  readonly size: string
  readonly exchangeTimeMs: number | null
  readonly metadata: string
}

/** What a session may ask for while it handles a line. */
export interface Host {
  /** Receive time of the line being handled, µs. */
  readonly us: number
  readonly keepers: readonly Keeper[]
  readonly wantsTrades: boolean
  /** Overrides the exchange's silence limit when not null. */
  readonly silenceMs: number | null
  send(text: string): void
  /** The connection is of no use any more: close it and connect again. */
  hangup(reason: string): void
  /** The exchange will close this connection: open another first, leave this one when that one is live. */
  replace(reason: string): void
  log(level: 'info' | 'warn' | 'error', message: string, facts: Record<string, unknown>): void
}

/** How a frame stands in its line: as it is, or as a JSON string. */
export type FrameForm = 'msg' | 'text'

/** The protocol of one connection, from its opening to its end. Nothing of it survives the connection. */
export interface Session {
  onOpen(): void
  /** Reads a frame without any effect; the frame's line is written between this and `apply`. */
  read(text: string): FrameForm
  /** Applies the frame that `read` read last. */
  apply(): void
  /** Time passes: acknowledgements that are overdue, keep-alives, silence. */
  onTick(): void
  /** A book needs a new image. */
  resync(index: number, reason: string): void
  /** Whether a book subscription was refused for good. */
  refused(index: number): boolean
  state(): unknown
  restore(state: unknown): void
}

/** One exchange: constants and pure functions. */
export interface Exchange {
  readonly id: string
  readonly levels: readonly Level[]
  readonly proof: Partial<Record<Level, Proof>>
  readonly limits: Limits
  readonly wsUrl: string
  readonly restUrl: string
  readonly restRequestsPerMinuteMax: number
  readonly catalogue: Catalogue
  /** The exchange's own name for a symbol in any common spelling, without looking at a list. */
  spell(symbol: string): string
  /** Market and channel of an instrument by its name. */
  describe(instId: string, level: Level): Instrument
  open(host: Host): Session
  /** The checksum of a book, over the exchange's own number text, as the exchange prints it. */
  checksum?(keeper: Keeper): number
}
