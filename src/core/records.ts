import * as z from 'zod'
import { FEEDS, MARKETS } from './instrument.ts'

// The records of the contract, key by key and in their order: what a reader may rely on, as schemas and as types.
// Only readers of vaults load this file; the capture makes its lines without it.

const ISO_MS = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/
const ISO = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z$/
const DECIMAL = /^\d+(?:\.\d+)?(?:[eE][+-]?\d{1,4})?$/
const COMPUTED = /^-?(?:0|[1-9]\d*)(?:\.\d*[1-9])?$/
const COUNT = /^\d+$/
const EXCHANGE = /^[a-z0-9-]+$/
const SIDE_KEY = /^(?:bids|asks)_top([1-9]\d*)$/
/** How many levels a side snapshots show unless another depth was asked for. */
const DEPTH = 400

/** A price level: price, size, a dead `"0"`, and the number of orders, null where the exchange does not tell it. */
export type LevelRow = [price: string, size: string, dead: '0', orders: string | null]

const text = (about: string) => z.string().min(1).meta({ description: about })
const count = (about: string) => z.int().min(0).meta({ description: about })
const number = (about: string) => z.int().nullable().meta({ description: about })
const flag = (about: string) => z.boolean().meta({ description: about })
const isoMs = (about: string) => z.string().regex(ISO_MS, 'is no time with milliseconds').meta({ description: about })
const decimal = (about: string) => z.string().regex(DECIMAL, 'is no unsigned decimal').meta({ description: about })
const computed = (about: string) => z.string().regex(COMPUTED, 'is no plain decimal').meta({ description: about })
const none = (about: string) => z.null().meta({ description: about })

const COMMON = {
  timestamp_utc: isoMs('Receive time, ISO 8601 UTC with milliseconds'),
  recv_us: count('Receive time, whole microseconds since the epoch; never decreases within a file'),
  exchange: z.string().regex(EXCHANGE, 'is no name of an exchange').meta({ description: 'Name of the exchange' }),
  market: z.enum(MARKETS).meta({ description: 'Kind of market' }),
  channel: text('The book channel of the exchange; trades in records of trades'),
  instId: text('The instrument as the exchange names it, without the leading t of Bitfinex')
}
const SOURCE = {
  conn: text('Name of a connection: with frame, the line of the frames feed that the record comes from'),
  frame: z.int().min(1).meta({ description: 'Number of the line within the frames of the connection, from 1' })
}
const EXCHANGE_TIME = {
  exchange_time: z.string().regex(ISO, 'is no ISO 8601 time in UTC').nullable().meta({
    description: 'The time of the exchange, as precise as it was sent; null where it tells none'
  })
}
const NO_EXCHANGE_TIME = { exchange_time: none('Always null here') }

const LEVEL_SCHEMA = {
  type: 'array',
  description: 'price, size, a dead "0", number of orders (null where the exchange does not tell it)',
  prefixItems: [
    { type: 'string', pattern: DECIMAL.source },
    { type: 'string', pattern: DECIMAL.source },
    { const: '0' },
    { type: ['string', 'null'], pattern: COUNT.source }
  ],
  minItems: 4,
  maxItems: 4
}

// Levels are most of a vault's records: a loop of our own takes a quarter of the time of a schema for each.
function isLevel(value: unknown): value is LevelRow {
  if (!Array.isArray(value) || value.length !== 4) return false
  const [price, size, dead, orders] = value as unknown[]
  if (typeof price !== 'string' || typeof size !== 'string' || dead !== '0') return false
  if (orders !== null && !(typeof orders === 'string' && COUNT.test(orders))) return false
  return DECIMAL.test(price) && DECIMAL.test(size)
}

function levelsFault(value: unknown): string | undefined {
  if (!Array.isArray(value)) return 'is no list of levels'
  const at = value.findIndex(level => !isLevel(level))
  return at < 0 ? undefined : `has no level [price, size, "0", orders] at ${at}`
}

const LEVELS = z
  .custom<LevelRow[]>(value => levelsFault(value) === undefined, { error: ({ input }) => levelsFault(input) })
  .meta({ type: 'array', items: LEVEL_SCHEMA })
const NO_LEVELS = LEVELS.refine(levels => levels.length === 0, 'is not empty').meta({
  maxItems: 0,
  description: 'Always empty here'
})

const SNAPSHOT = {
  best_bid: decimal('Highest price of the bids, as sent; null where there are none').nullable(),
  best_ask: decimal('Lowest price of the asks, as sent; null where there are none').nullable(),
  mid_price: computed('The exact middle of the two; null where a side is empty').nullable(),
  checksum: number('The last checksum of the exchange; null if it sent none, or 0'),
  seqId: number('The last number of the exchange that changed this book; null where it has none'),
  prevSeqId: number('The number before it, where the exchange tells it'),
  gap_detected: flag('Continuity was lost now: this is the last state before'),
  synced_at: isoMs(
    'When the book was last built from a full image: two records with the same one miss nothing between'
  ),
  ...SOURCE
}
const STATS = {
  stats: z
    .strictObject({
      total_orders: count('Orders of both sides'),
      bid_count: count('Orders of the bids'),
      ask_count: count('Orders of the asks'),
      total_bid_volume: computed('Exact sum of the sizes of the bids'),
      total_ask_volume: computed('Exact sum of the sizes of the asks'),
      spread: computed('Best ask less best bid; null where a side is empty').nullable()
    })
    .meta({ description: 'Of the whole book held, not only of the levels shown' })
}
const SIDES = ['bids', 'asks'] as const

/** A fixed list of keys cannot say that the names of the two sides carry the depth: what is said of them stands apart. */
function snapshotSchema<Rest extends z.ZodRawShape>(title: string, rest: Rest) {
  const shape = { ...COMMON, ...rest }
  const isKnown = (key: string) => Object.hasOwn(shape, key)
  const sideSchema = (side: string) => [
    `^${side}_top[1-9]\\d*$`,
    { description: `The best ${side}, the best first`, type: 'array', items: LEVEL_SCHEMA }
  ]
  return z
    .looseObject(shape)
    .superRefine((record, context) => {
      const keys = Object.keys(record).filter(key => !isKnown(key))
      const strange = keys.filter(key => !SIDE_KEY.test(key))
      if (strange.length > 0) context.addIssue({ code: 'unrecognized_keys', keys: strange, input: record })
      const depth = SIDE_KEY.exec(keys.find(key => SIDE_KEY.test(key)) ?? '')?.[1]
      for (const key of SIDES.map(side => `${side}_top${depth ?? DEPTH}`)) {
        const message = Object.hasOwn(record, key) ? levelsFault(record[key]) : 'is missing'
        if (message !== undefined) context.addIssue({ code: 'custom', path: [key], message })
      }
      if (keys.length - strange.length > SIDES.length) context.addIssue('has sides of two depths')
    })
    .meta({
      title,
      patternProperties: Object.fromEntries(SIDES.map(sideSchema)),
      additionalProperties: false,
      maxProperties: Object.keys(shape).length + SIDES.length,
      // Some key is the one of a side: not all keys are others.
      allOf: SIDES.map(side => ({ not: { propertyNames: { not: { pattern: `^${side}_top[1-9]\\d*$` } } } }))
    })
}

/** A snapshot of an order-by-order book: `l3_spot`, `l3_perps` and the like. */
export const L3_SNAPSHOT = snapshotSchema('Snapshot of a book with its orders', { ...SNAPSHOT, ...STATS })
/** A snapshot of a book of price levels: `l2_spot`, `l2_perps` and the like. */
export const L2_SNAPSHOT = snapshotSchema('Snapshot of a book of price levels', SNAPSHOT)

/** Why the book was emptied. */
const IMAGE_REASON = z.strictObject({
  reason: z.enum(['sync', 'hour']).meta({ description: 'sync: a fresh image; hour: a new file begins' })
})
const FACT = z.union([z.string(), z.number(), z.null()])
const GAP_REASON = z.strictObject({
  reason: text('Why continuity was lost'),
  expected: FACT.meta({ description: 'What should have come' }),
  received: FACT.meta({ description: 'What came instead' })
})
const NO_METADATA = z.strictObject({})
const FACTS = z.looseObject({}).meta({ description: 'What else the exchange told, as sent' })

const SEQUENCE = number('The number of the message; null where the exchange has none')
const LAST = flag('Whether it is the last event of its frame: only there is the book consistent')
const SIDE = z.enum(['bid', 'ask']).meta({ description: 'The side of the order' })
const ORDER = {
  order_id: text('The id of the order'),
  side: SIDE,
  price: decimal('Price as sent'),
  size: decimal('Size: what remains, in a match what was taken, in done the last known')
}

/** An event that names an order. */
function orderEvent<Type extends string, Order extends z.ZodRawShape, Time extends z.ZodRawShape>(
  types: readonly Type[],
  order: Order,
  time: Time
) {
  const event_type = z.enum(types).meta({ description: 'What a reader does to its book' })
  return z.strictObject({
    ...COMMON,
    event_type,
    ...order,
    sequence: SEQUENCE,
    ...time,
    ...SOURCE,
    last: LAST,
    metadata: FACTS
  })
}

/** An event of the whole book. */
function bookEvent<Type extends string, Metadata extends z.ZodType>(type: Type, about: string, metadata: Metadata) {
  const absent = none('Always null here')
  return z.strictObject({
    ...COMMON,
    event_type: z.literal(type).meta({ description: about }),
    order_id: absent,
    side: absent,
    price: absent,
    size: absent,
    sequence: absent,
    ...NO_EXCHANGE_TIME,
    ...SOURCE,
    last: LAST,
    metadata
  })
}

const CLEAR_ABOUT = 'Empty the book; its image follows'
const GAP_ABOUT = 'Distrust the book until the next clear'

/** An event of `l3_events`. */
export const EVENT = z
  .discriminatedUnion('event_type', [
    bookEvent('clear', CLEAR_ABOUT, IMAGE_REASON),
    orderEvent(['snapshot'], ORDER, NO_EXCHANGE_TIME),
    orderEvent(['open', 'change', 'match'], ORDER, EXCHANGE_TIME),
    orderEvent(
      ['done', 'received', 'activate'],
      {
        order_id: ORDER.order_id,
        side: SIDE.nullable(),
        price: ORDER.price.nullable(),
        size: ORDER.size.nullable()
      },
      EXCHANGE_TIME
    ),
    bookEvent('gap', GAP_ABOUT, GAP_REASON)
  ])
  .meta({ title: 'Event of one order' })

const NUMBERS = {
  seqId: number('The number of the update; null where the exchange has none'),
  prevSeqId: number('The number before it, where the exchange tells it'),
  checksum: number('The checksum sent with it; null if there was none, or 0')
}

/** A line of `l2_updates` without levels. */
function bookUpdate<Type extends string, Metadata extends z.ZodType>(type: Type, about: string, metadata: Metadata) {
  const absent = none('Always null here')
  return z.strictObject({
    ...COMMON,
    event_type: z.literal(type).meta({ description: about }),
    bids: NO_LEVELS,
    asks: NO_LEVELS,
    seqId: absent,
    prevSeqId: absent,
    checksum: absent,
    ...NO_EXCHANGE_TIME,
    ...SOURCE,
    metadata
  })
}

/** A line of `l2_updates` with levels. */
function levelUpdate<Type extends string, Time extends z.ZodRawShape, Metadata extends z.ZodType>(
  type: Type,
  about: string,
  time: Time,
  metadata: Metadata
) {
  return z.strictObject({
    ...COMMON,
    event_type: z.literal(type).meta({ description: about }),
    bids: LEVELS.meta({ description: 'Levels of the bids, text as sent' }),
    asks: LEVELS.meta({ description: 'Levels of the asks, text as sent' }),
    ...NUMBERS,
    ...time,
    ...SOURCE,
    metadata
  })
}

/** An update of `l2_updates`. */
export const UPDATE = z
  .discriminatedUnion('event_type', [
    bookUpdate('clear', CLEAR_ABOUT, IMAGE_REASON),
    levelUpdate('snapshot', 'The whole book', NO_EXCHANGE_TIME, IMAGE_REASON),
    levelUpdate('update', 'Set these levels; a size that is zero removes one', EXCHANGE_TIME, NO_METADATA),
    bookUpdate('gap', GAP_ABOUT, GAP_REASON)
  ])
  .meta({ title: 'Update of price levels' })

/** A trade of `trades`. */
export const TRADE = z
  .strictObject({
    ...COMMON,
    trade_id: text('The id of the trade: written once'),
    side: z.enum(['buy', 'sell']).meta({ description: 'The side of the taker' }),
    price: decimal('Price as sent'),
    size: decimal('Size as sent; contracts for derivatives of OKX'),
    ...EXCHANGE_TIME,
    ...SOURCE,
    metadata: FACTS.meta({ description: 'What else the exchange told, as sent; backfill: true for history' })
  })
  .meta({ title: 'Trade' })

const RUN = text('The process that wrote it, a UUID')
const CONN = SOURCE.conn.meta({ description: 'Name of the connection' })
const SAID = z.string().meta({ description: 'What was said' })
const CHANNEL = text('What the subscription is for: book, trades, or a heartbeat')
const PROOF = z
  .strictObject({
    sequence: z.enum(['connection', 'instrument', 'none']).meta({ description: 'What one sequence of numbers covers' }),
    checksum: flag('Whether checksums are sent')
  })
  .meta({ description: 'What the feed lets a capture verify' })
const GAP_FACTS = { expected: GAP_REASON.shape.expected, received: GAP_REASON.shape.received }
const GAP_DETAIL = z.union(
  [
    z.strictObject({
      ...GAP_REASON.shape,
      cause: text('The same as the reason'),
      conn: CONN
    }),
    z.strictObject({
      conn: CONN.optional(),
      channel: z.literal('trades').meta({ description: 'Trades are missing; no book is lost' }),
      cause: text('What was lost: trades by their ids, or what made frames unreadable'),
      ...GAP_FACTS,
      why: text('Why they could not be had later').optional()
    })
  ],
  { error: 'is neither a gap of the book nor one of trades' }
)
const MISMATCH_DETAIL = z.union(
  [
    z.strictObject({
      expected: z.int().meta({ description: 'The checksum of the exchange' }),
      computed: z.int().meta({ description: 'The checksum of the book held' }),
      in_row: count('Mismatches without a right one between'),
      count: count('Mismatches of the whole run')
    }),
    z.strictObject({
      conn: CONN,
      verification: z.literal('off').meta({ description: 'Checksums are no longer verified' }),
      reason: text('Why')
    })
  ],
  { error: 'is neither a mismatch nor the end of the verification' }
)

/** A record of `status`. */
function statusRecord<Event extends string, Detail extends z.ZodType>(event: Event, about: string, detail: Detail) {
  return z.strictObject({ ...COMMON, event: z.literal(event).meta({ description: about }), detail })
}

/** A record of `status`; `detail` is open where it repeats what an exchange said. */
export const STATUS = z
  .discriminatedUnion('event', [
    statusRecord(
      'started',
      'A capture begins',
      z.strictObject({
        run: RUN,
        pid: count('Number of the process'),
        frames: flag('Whether frames are kept')
      })
    ),
    statusRecord('connected', 'A connection is established', z.strictObject({ conn: CONN })),
    statusRecord(
      'subscribed',
      'The exchange has acknowledged the subscription',
      z.strictObject({ conn: CONN, channel: text('The channel of the exchange'), proof: PROOF })
    ),
    statusRecord(
      'synced',
      'The book is whole',
      z.strictObject({
        conn: CONN,
        synced_at: SNAPSHOT.synced_at,
        planned: z.literal(true).optional().meta({ description: 'A planned change of connection: nothing was lost' }),
        down_ms: count('Milliseconds since the gap that it heals').optional()
      })
    ),
    statusRecord('gap', 'Continuity is lost', GAP_DETAIL),
    statusRecord('checksum_mismatch', 'A checksum of the exchange is not the one of the book', MISMATCH_DETAIL),
    statusRecord(
      'stalled',
      'Nothing came for too long',
      z.strictObject({ conn: CONN, channel: CHANNEL, silent_ms: count('Milliseconds of silence') })
    ),
    statusRecord(
      'disconnected',
      'A connection was lost',
      z.strictObject({ conn: CONN, code: number('The close code'), reason: SAID })
    ),
    statusRecord(
      'resubscribed',
      'The book is asked for anew',
      z.strictObject({ conn: CONN, reason: text('Why'), attempt: count('How often in a row') })
    ),
    statusRecord(
      'refused',
      'The exchange refused a subscription, in its own words',
      z.looseObject({ conn: CONN, channel: CHANNEL, final: flag('Whether it is not asked for again soon') })
    ),
    statusRecord('maintenance', 'The exchange told of a maintenance, in its own words', z.looseObject({ conn: CONN })),
    statusRecord(
      'clock_step',
      'The wall clock was set',
      z.strictObject({ step_ms: z.int().meta({ description: 'By how much; negative: back' }) })
    ),
    statusRecord('writer_paused', 'The disk takes nothing', z.strictObject({ reason: text('What the system said') })),
    statusRecord(
      'writer_resumed',
      'The disk takes lines again',
      z.strictObject({ waited_bytes: count('What had waited in memory') })
    ),
    statusRecord(
      'tail_repaired',
      'A half-written line of an earlier run was moved aside',
      z.strictObject({ conn: CONN.optional(), moved_bytes: count('Length of what was moved') })
    ),
    statusRecord('stopped', 'A capture ends cleanly', z.strictObject({ run: RUN, reason: text('What ended it') }))
  ])
  .meta({ title: 'What happened to the capture of an instrument' })

const FRAME_HEAD = { recv_us: COMMON.recv_us, ...SOURCE }
const PAYLOAD = {
  msg: z.unknown().optional().meta({ description: 'The JSON of the frame, word for word' }),
  text: z.string().optional().meta({ description: 'A frame that is no JSON on one line, as a string' })
}
const OPEN_DETAIL = z
  .looseObject({
    v: count('Version of the format'),
    instruments: z.array(z.looseObject({ instId: COMMON.instId })).meta({ description: 'What the connection is for' })
  })
  .meta({ description: 'What the engine needs to begin; its insides may change with v' })

/** A frames line of one direction that holds a frame, as `msg` or as `text`. */
function payloadFrame<Dir extends string, Head extends z.ZodRawShape>(dir: Dir, about: string, head: Head) {
  const isOne = (record: object) => Object.hasOwn(record, 'msg') !== Object.hasOwn(record, 'text')
  return z
    .strictObject({ ...FRAME_HEAD, dir: z.literal(dir).meta({ description: about }), ...head, ...PAYLOAD })
    .refine(isOne, 'has not one of msg and text')
    .meta({ oneOf: [{ required: ['msg'] }, { required: ['text'] }] })
}

/** A frames line of one direction without a frame. */
function markFrame<Dir extends string, Rest extends z.ZodRawShape>(dir: Dir, about: string, rest: Rest) {
  return z.strictObject({ ...FRAME_HEAD, dir: z.literal(dir).meta({ description: about }), ...rest })
}

/** A line of `frames`. */
export const FRAME = z
  .discriminatedUnion('dir', [
    markFrame('open', 'A connection is established', { run: RUN, url: text('Where to'), open: OPEN_DETAIL }),
    payloadFrame('in', 'A message came', {
      encoding: z.literal('base64').optional().meta({ description: 'How text holds what is no text' }),
      unread: z.literal(true).optional().meta({ description: 'It was kept and not read' })
    }),
    payloadFrame('out', 'A message was sent; secrets in it are ***', {}),
    payloadFrame('http', 'The answer to a REST request', {
      id: text('The request, as the capture names it'),
      method: z.enum(['GET', 'POST']).meta({ description: 'Method of the request' }),
      url: text('Where to'),
      status: count('HTTP status; 0: there was no answer')
    }),
    markFrame('tick', 'Time passed; snapshots were taken if they were due', {}),
    markFrame('skip', 'Messages could not be kept', {
      from: count('Since when, microseconds since the epoch'),
      count: count('How many')
    }),
    markFrame('close', 'A connection ended', {
      code: number('The close code; null where there was none'),
      reason: SAID,
      cause: z.enum(['stopped', 'replaced', 'lost']).meta({ description: 'Only lost is a gap' })
    }),
    markFrame('state', 'An hour begins: all that is known of the connection', { run: RUN, state: OPEN_DETAIL })
  ])
  .meta({ title: 'Line of the wire' })

/** The levels of a snapshot, under keys that end in their depth: `bids_top400`. */
type Sides = { [key in `bids_top${number}` | `asks_top${number}`]: LevelRow[] }
/** The keys of a loose object that it names. */
type Named<Record> = { [Key in keyof Record as string extends Key ? never : Key]: Record[Key] }

/** A record of a snapshot feed; `stats` is there in those of L3. */
export type SnapshotRecord = Named<z.infer<typeof L2_SNAPSHOT>> & Partial<z.infer<z.ZodObject<typeof STATS>>> & Sides
/** A record of `l3_events`. */
export type EventRecord = z.infer<typeof EVENT>
/** A record of `l2_updates`. */
export type UpdateRecord = z.infer<typeof UPDATE>
/** A record of `trades`. */
export type TradeRecord = z.infer<typeof TRADE>
/** A record of `status`. */
export type StatusRecord = z.infer<typeof STATUS>
/** A line of `frames`. */
export type FrameRecord = z.infer<typeof FRAME>

/** The schemas by name: the feed, or for all snapshot feeds of a level `l3_snapshot` and `l2_snapshot`. */
export const RECORDS = {
  frames: FRAME,
  l3_snapshot: L3_SNAPSHOT,
  l2_snapshot: L2_SNAPSHOT,
  l3_events: EVENT,
  l2_updates: UPDATE,
  trades: TRADE,
  status: STATUS
} as const satisfies Record<string, z.ZodType>

/** JSON Schema (draft 2020-12) of a kind of record, as a plain object. */
export function jsonSchemaOf(name: keyof typeof RECORDS): Record<string, unknown> {
  // The levels are checked by code; what they look like stands in their description.
  const { $schema, title, ...rest } = z.toJSONSchema(RECORDS[name], { unrepresentable: 'any' })
  return { $schema, $id: `urn:l3cap:schema:${name}`, title, ...rest }
}

const SNAPSHOT_NAMES: Record<string, keyof typeof RECORDS> = { l3: 'l3_snapshot', l2: 'l2_snapshot' }

/** The name in `RECORDS` of what a feed holds; undefined when there is no such feed. */
export function recordName(feed: string): keyof typeof RECORDS | undefined {
  if (!FEEDS.includes(feed)) return undefined
  return Object.hasOwn(RECORDS, feed) ? (feed as keyof typeof RECORDS) : SNAPSHOT_NAMES[feed.slice(0, 2)]
}

const EVENT_KEYS = Object.keys(EVENT.options[0].shape)
const UPDATE_KEYS = Object.keys(UPDATE.options[0].shape)
const STATUS_KEYS = Object.keys(STATUS.options[0].shape)
const TRADE_KEYS = Object.keys(TRADE.shape)
const FRAME_KEYS = new Map(FRAME.options.map(({ shape }) => [shape.dir.value as unknown, Object.keys(shape)]))
const SHOT_KEYS = new Map<string, readonly string[]>()

function snapshotKeys(depth: string, withStats: boolean): readonly string[] {
  const name = `${depth} ${withStats}`
  let keys = SHOT_KEYS.get(name)
  if (keys === undefined) {
    const sides = SIDES.map(side => `${side}_top${depth}`)
    keys = [...Object.keys(COMMON), ...sides, ...Object.keys(SNAPSHOT), ...(withStats ? Object.keys(STATS) : [])]
    SHOT_KEYS.set(name, keys)
  }
  return keys
}

/**
 * The keys of a record, in their order, those included that only some records have. What the record tells is its depth
 * (else 400), or the direction of a frame (without it: the keys that all frames have).
 */
export function recordKeys(feed: string, record: object = {}): readonly string[] {
  const name = recordName(feed)
  switch (name) {
    case undefined:
      return []
    case 'frames':
      return FRAME_KEYS.get((record as { dir?: unknown }).dir) ?? [...Object.keys(FRAME_HEAD), 'dir']
    case 'l3_events':
      return EVENT_KEYS
    case 'l2_updates':
      return UPDATE_KEYS
    case 'trades':
      return TRADE_KEYS
    case 'status':
      return STATUS_KEYS
    default:
      return snapshotKeys(depthOf(record)?.toString() ?? String(DEPTH), name === 'l3_snapshot')
  }
}

/** How many levels a side a snapshot record may show: 400 of `bids_top400`; undefined when no key says so. */
export function depthOf(record: object): number | undefined {
  for (const key of Object.keys(record)) {
    const match = SIDE_KEY.exec(key)
    if (match) return Number(match[1])
  }
  return undefined
}

/** The levels of a snapshot record, whatever its depth. */
export function sidesOf(record: SnapshotRecord): { depth: number; bids: LevelRow[]; asks: LevelRow[] } {
  const depth = depthOf(record) ?? 0
  return { depth, bids: record[`bids_top${depth}`] ?? [], asks: record[`asks_top${depth}`] ?? [] }
}

/** What is wrong with a parsed line of a feed, in plain words: the first thing found. Undefined: nothing. */
export function recordFault(feed: string, record: unknown): string | undefined {
  const name = recordName(feed)
  if (name === undefined) return `there is no feed ${feed}`
  const issue = RECORDS[name].safeParse(record).error?.issues[0]
  if (issue !== undefined) return wordsOf(issue, record)
  const keys = recordKeys(feed, record as object)
  let at = 0
  for (const key of Object.keys(record as object)) {
    while (at < keys.length && keys[at] !== key) at++
    if (at === keys.length) return `the key ${key} is not at its place`
  }
  return undefined
}

function wordsOf(issue: z.core.$ZodIssue, record: unknown): string {
  const place = issue.path.join('.')
  const value = issue.path.reduce<unknown>((inner, key) => (inner as Record<PropertyKey, unknown>)?.[key], record)
  if (issue.code === 'unrecognized_keys') return `unknown key ${[place, issue.keys[0]].filter(Boolean).join('.')}`
  if (value === undefined && place !== '') return `${place} is missing`
  // No form of the record has such a value: an event, a direction that nobody knows.
  if (issue.code === 'invalid_union' && issue.errors.length === 0)
    return `${place} ${JSON.stringify(value)} is not known`
  const { message } = issue
  return place === ''
    ? `the record: ${message}`
    : /^(?:is|has) /.test(message)
      ? `${place} ${message}`
      : `${place}: ${message}`
}
