/** The book of an instrument at a moment, and whether it can be trusted. */
import type { LevelBook } from '../book/levels.ts'
import type { OrderBook } from '../book/orders.ts'
import { L3capError } from '../core/errors.ts'
import { LEVELS, type Level, MARKETS, snapshotFeed } from '../core/instrument.ts'
import { HOUR_US, hourOf, isoMs } from '../core/time.ts'
import { listStreams, recvUsOf, type Stream } from '../vault/streams.ts'
import { type BookReplay, LevelReplay, OrderReplay } from './books.ts'
import { readStream } from './lines.ts'
import { eventFeed, type InstrumentQuery, type Moment, microsOf, type Vault } from './vault.ts'

/** Which book, and when. `latest`: the newest moment for which the vault has a proof. */
export interface BookQuery extends InstrumentQuery {
  readonly at: Moment | 'latest'
}

/**
 * Why a book is not to be trusted.
 *
 * - `no_image`: the vault has no image of it at or before the moment
 * - `gap`: continuity was lost before the moment and not won back, or was found to be lost right after it
 * - `checksum`: a checksum of the exchange did not match, and no image has come since
 * - `stopped`, `killed`: no process captured it then
 * - `behind`: the moment lies after all that proves the book
 * - `hour_missing`: the hour's file is not in the vault
 * - `damaged`: lines on the way to the moment cannot be read, or do not fit
 */
export type DistrustKind =
  | 'no_image'
  | 'gap'
  | 'checksum'
  | 'stopped'
  | 'killed'
  | 'behind'
  | 'hour_missing'
  | 'damaged'

/** Why a book is not to be trusted, since when, and up to when; µs, null where the vault does not tell. */
export interface Distrust {
  readonly kind: DistrustKind
  /** In plain words. */
  readonly message: string
  /** Of a gap as in its record (`sequence`, `disconnect`, …), of `stopped` its reason; else empty. */
  readonly cause: string
  readonly fromUs: number | null
  readonly toUs: number | null
}

/** What `bookAt` gives. */
export type BookAt = BookFacts &
  ({ readonly level: 'l3'; readonly book: OrderBook } | { readonly level: 'l2'; readonly book: LevelBook })

/** All but the book. */
export interface BookFacts {
  readonly exchange: string
  /** The folder name of the instrument. */
  readonly name: string
  /** The moment, µs. */
  readonly atUs: number
  /**
   * Whether this is the book of the moment, as far as the exchange lets anybody prove it: an unbroken sequence of events
   * leads to it, and what stands after it shows that none was missed. `reason` is null then.
   */
  readonly trusted: boolean
  readonly reason: Distrust | null
  /** When the book was last built from a full image, as in snapshots; null where the vault does not tell any more. */
  readonly syncedAt: string | null
  /** Receive time of the last frame that changed it, µs, where it stands in the frames feed, and how old it was then. */
  readonly eventUs: number | null
  readonly conn: string | null
  readonly frame: number | null
  readonly ageMs: number | null
  /** The last number of the exchange; null where it has none. */
  readonly seqId: number | null
  /** Where the image stands that it was built from (`file:line`), and how many lines were applied to it. */
  readonly image: string | null
  readonly lines: number
}

/** A line after the moment, or something that happened to the capture. */
interface Mark {
  readonly us: number
  readonly hour: number
  readonly type: string
  readonly reason: string
}

/** The lines up to a moment, replayed, and the first one after it. */
interface Replayed {
  readonly replay: OrderReplay | LevelReplay
  readonly hour: number
  next: Mark | null
  /** Whether the hour has lines up to the moment. */
  hasBegun: boolean
  /** Whether all of its lines were read, and half a one stands behind them. */
  isCut: boolean
}

/** The streams of one instrument that a book is made from and proven by. */
interface Feeds {
  readonly vault: string
  readonly level: Level
  readonly events: Stream
  readonly status: Stream | undefined
  readonly shots: Stream | undefined
}

const FOREVER = Number.MAX_SAFE_INTEGER
/** More levels than any book has. */
const ALL_LEVELS = 1e9
/** A snapshot that is not the last one before a loss. */
const REGULAR = ',"gap_detected":false,'
/** Where `timestamp_utc` stands in a line. */
const TIME_AT = '{"timestamp_utc":"'.length

/**
 * The book of an instrument at a moment: its last image, and every whole frame up to and including the moment. Where it cannot
 * be trusted it is what is known nevertheless, with the reason. The book is the caller's own.
 * @throws {L3capError} `USAGE` when the vault has no such instrument, or no events of it; `VAULT` when a file cannot be read
 */
export async function bookAt(vault: Vault, query: BookQuery): Promise<BookAt> {
  const instrument = vault.find(query)
  const wanted = query.at === 'latest' ? FOREVER : microsOf(query.at)
  const feeds = feedsOf(vault.path, instrument, wanted, query.level)
  const replayed = await replayUpTo(feeds, wanted)
  const { replay } = replayed
  const atUs = wanted < FOREVER ? wanted : await latestOf(feeds, replayed)
  const marks = await readMarks(feeds, replay.image?.us ?? atUs, replayed.next?.us ?? FOREVER)
  const reason = await judge(feeds, replayed, marks, atUs)
  const { last, image } = replay
  const facts: BookFacts = {
    ...instrument,
    atUs,
    trusted: reason === null,
    reason,
    syncedAt: await syncedAt(feeds, replay),
    eventUs: last?.us ?? null,
    conn: last?.conn ?? null,
    frame: last?.frame ?? null,
    ageMs: last === null ? null : (atUs - last.us) / 1000,
    seqId: last?.seqId ?? null,
    image: image?.place ?? null,
    lines: replay.count
  }
  return replay instanceof OrderReplay
    ? { ...facts, level: 'l3', book: replay.book }
    : { ...facts, level: 'l2', book: replay.book }
}

/** The streams for the level asked for, or the one with the newest hour at the moment; order events first. */
function feedsOf(
  vault: string,
  instrument: { readonly exchange: string; readonly name: string },
  atUs: number,
  wanted: Level | undefined
): Feeds {
  const streams = listStreams(vault, instrument)
  const of = (feed: string) => streams.find(each => each.feed === feed)
  const found = LEVELS.filter(level => wanted === undefined || level === wanted).flatMap(level => {
    const events = of(eventFeed(level))
    if (events === undefined) return []
    const shots = MARKETS.map(market => of(snapshotFeed(level, market))).find(each => each !== undefined)
    return [{ vault, level, events, status: of('status'), shots }]
  })
  const newest = ({ events }: Feeds) => events.hours.findLast(({ hour }) => hour <= hourOf(atUs))?.hour ?? 0
  const best = found.reduce<Feeds | undefined>((a, b) => (a === undefined || newest(b) > newest(a) ? b : a), undefined)
  if (best === undefined) {
    const what = `${wanted ?? 'book'} events of ${instrument.exchange} ${instrument.name}`
    throw new L3capError('USAGE', `the vault holds no ${what}`)
  }
  return best
}

/** Replays the hour of the moment; where it has no image up to then, the newest hour before. */
async function replayUpTo(feeds: Feeds, atUs: number): Promise<Replayed> {
  const hours = [...new Set(feeds.events.hours.map(({ hour }) => hour))].filter(hour => hour <= hourOf(atUs))
  const newest = hours.at(-1)
  let found = beginOf(feeds, newest ?? hourOf(atUs))
  if (newest !== undefined) {
    await replayHour(feeds, found, atUs)
    const before = hours.at(-2)
    // The first lines of an hour come when the first frame does: until then the book is that of the hour before.
    if (before !== undefined && !found.hasBegun && found.replay.doubt?.kind === 'no_image') {
      const { next } = found
      found = beginOf(feeds, before)
      await replayHour(feeds, found, atUs)
      found.next ??= next
    }
  }
  found.next ??= await firstAfter(feeds, found.hour)
  return found
}

function replayOf(level: Level): OrderReplay | LevelReplay {
  return level === 'l3' ? new OrderReplay() : new LevelReplay()
}

function beginOf({ level }: Feeds, hour: number): Replayed {
  return { replay: replayOf(level), hour, next: null, hasBegun: false, isCut: false }
}

function hourStream(stream: Stream, hour: number): Stream {
  return { ...stream, hours: stream.hours.filter(each => each.hour === hour) }
}

/** Takes the lines of an hour up to the moment, and notes the first one after it. */
async function replayHour(feeds: Feeds, found: Replayed, atUs: number): Promise<void> {
  const { replay, hour } = found
  const stream = hourStream(feeds.events, hour)
  let lastUs = hour * HOUR_US
  const onDamage = ({ file }: { file: string }) => replay.damage(file, lastUs)
  const onTail = (): void => {
    found.isCut = true
  }
  for await (const { lines, file, firstLine } of readStream(feeds.vault, stream, {}, onDamage, onTail)) {
    for (let n = 0; n < lines.length; n++) {
      const line = lines[n]!
      const us = recvUsOf(line)
      // A time that damage has changed must neither end the reading nor prove anything.
      if (!(us >= lastUs && us < (hour + 1) * HOUR_US && line.startsWith(isoMs(us), TIME_AT))) {
        replay.damage(`${file}:${firstLine + n}`, lastUs)
        continue
      }
      if (us > atUs) {
        found.next = markOf(line, us, hour)
        if (found.next !== null) return
        replay.damage(`${file}:${firstLine + n}`, lastUs)
        continue
      }
      lastUs = us
      found.hasBegun = true
      replay.take(line, us, `${file}:${firstLine + n}`)
    }
  }
}

/** What a line of events or status says besides its data; null where it is no JSON. */
function markOf(line: string, us: number, hour: number): Mark | null {
  try {
    const { event_type, metadata, event, detail } = JSON.parse(line) as Record<
      string,
      Record<string, unknown> | undefined
    >
    const facts = metadata ?? detail
    // Trades that are missing are no loss of the book.
    const type = detail?.channel === 'trades' ? 'trades' : String(event_type ?? event)
    return { us, hour, type, reason: String(facts?.synced_at ?? facts?.reason ?? '') }
  } catch {
    return null
  }
}

/** The first line of the next hour that there is. */
async function firstAfter(feeds: Feeds, hour: number): Promise<Mark | null> {
  const next = feeds.events.hours.find(each => each.hour > hour)?.hour
  if (next === undefined) return null
  for await (const { lines } of readStream(feeds.vault, hourStream(feeds.events, next), {}, () => undefined)) {
    for (const line of lines) {
      const mark = markOf(line, recvUsOf(line), next)
      if (mark !== null && hourOf(mark.us) === next) return mark
    }
  }
  return null
}

/** What the status records tell from one moment to another, both included. What cannot be read of them is `damaged`. */
async function readMarks(feeds: Feeds, fromUs: number, toUs: number): Promise<Mark[]> {
  const marks: Mark[] = []
  if (feeds.status === undefined) return marks
  const hours = feeds.status.hours.filter(({ hour }) => hour >= hourOf(fromUs) && hour <= hourOf(toUs))
  const range = { fromUs, toUs: toUs === FOREVER ? undefined : toUs + 1 }
  const damage = (place: string): number =>
    marks.push({ us: marks.at(-1)?.us ?? fromUs, hour: hourOf(fromUs), type: 'damaged', reason: place })
  const onDamage = ({ file }: { file: string }): number => damage(file)
  for await (const batch of readStream(feeds.vault, { ...feeds.status, hours }, range, onDamage)) {
    for (const [n, line] of batch.lines.entries()) {
      const us = recvUsOf(line)
      const mark = hourOf(us) === batch.hour ? markOf(line, us, batch.hour) : null
      if (mark !== null) marks.push(mark)
      else damage(`${batch.file}:${batch.firstLine + n}`)
    }
  }
  return marks
}

/** The newest moment that the vault proves: the last event, or the last snapshot of the same hour that shows its book. */
async function latestOf(feeds: Feeds, { replay, hour }: Replayed): Promise<number> {
  let lastUs = Math.max(replay.last?.us ?? hour * HOUR_US, replay.doubt?.us ?? 0)
  if (replay.doubt === null) for await (const us of proofs(feeds, replay, hour, lastUs, FOREVER)) lastUs = us
  return lastUs
}

/**
 * The times of the snapshots that show the book as it was replayed. A process may die with events on their way to the disk:
 * a later snapshot alone does not prove that there were none.
 */
async function* proofs(
  { vault, shots }: Feeds,
  replay: OrderReplay | LevelReplay,
  hour: number,
  fromUs: number,
  toUs: number
): AsyncGenerator<number> {
  if (shots === undefined || fromUs >= toUs) return
  for await (const { lines } of readStream(vault, hourStream(shots, hour), { fromUs, toUs }, () => undefined))
    for (const line of lines) if (shows(line, replay)) yield recvUsOf(line)
}

/** Whether a snapshot is that of a book: the levels it shows, and what it says of the whole of it. */
function shows(line: string, replay: OrderReplay | LevelReplay): boolean {
  const isWhole =
    replay instanceof OrderReplay
      ? line.endsWith(`,"stats":${replay.book.stats()}}`)
      : line.includes(`,"seqId":${replay.last?.seqId ?? null},`)
  return isWhole && line.includes(REGULAR) && hasLevels(line, replay)
}

function hasLevels(line: string, { book }: OrderReplay | LevelReplay): boolean {
  const depth = Number(/"bids_top(\d+)":/.exec(line)?.[1] ?? 0)
  return line.includes(`"bids_top${depth}":${book.top(false, depth)},"asks_top${depth}":${book.top(true, depth)},`)
}

/** Whether a snapshot from one moment to another shows another book: events before it are missing. */
async function isContradicted({ vault, shots }: Feeds, replayed: Replayed, fromUs: number, toUs: number) {
  if (shots === undefined) return false
  const { replay, hour } = replayed
  for await (const { lines } of readStream(vault, hourStream(shots, hour), { fromUs, toUs }, () => undefined))
    if (lines.some(line => line.includes(REGULAR) && line.endsWith('}') && !hasLevels(line, replay))) return true
  return false
}

/** Whether the image that an hour begins with is the book that the hour before has left: none of its events is missing then. */
async function isTakenOver(feeds: Feeds, { replay }: Replayed, hour: number): Promise<boolean> {
  const image = replayOf(feeds.level)
  const textOf = ({ book }: OrderReplay | LevelReplay) =>
    [book.top(false, ALL_LEVELS), book.top(true, ALL_LEVELS)].join()
  for await (const { lines } of readStream(feeds.vault, hourStream(feeds.events, hour), {}, () => undefined)) {
    for (const line of lines) {
      image.take(line, recvUsOf(line), '')
      if (image.doubt === null) return textOf(image) === textOf(replay)
      if (image.doubt.kind === 'damaged') return false
    }
  }
  return false
}

/** When the book was last built from a full image: what the last `synced` before its last change says. */
async function syncedAt({ vault, status }: Feeds, { last, image }: BookReplay): Promise<string | null> {
  if (last === null || image === null) return null
  const hours = [...new Set(status?.hours.map(({ hour }) => hour))].filter(hour => hour <= hourOf(last.us))
  for (const hour of hours.reverse()) {
    const marks = await readMarks({ vault, status: hourStream(status!, hour) } as Feeds, hour * HOUR_US, last.us)
    const synced = marks.findLast(({ type }) => type === 'synced')
    if (synced !== undefined) return synced.reason
  }
  return image.reason === 'sync' ? isoMs(image.us) : null
}

/** Why the book that was replayed is not to be trusted; null where it is. */
async function judge(feeds: Feeds, replayed: Replayed, marks: readonly Mark[], atUs: number): Promise<Distrust | null> {
  const { replay, hour, next } = replayed
  const { last, image } = replay
  if (replay.doubt !== null || last === null || image === null) return fromLines(replay, next)
  const end = marks.find(
    ({ type, us }) => (type === 'stopped' && us >= last.us) || (type === 'started' && us > last.us)
  )
  if (end !== undefined && end.us <= atUs) return ofEnd(end, last.us, next)
  const mismatch = marks.find(({ type, us }) => type === 'checksum_mismatch' && us >= image.us && us <= atUs)
  const broken = marks.find(({ type, us }) => type === 'damaged' && us <= atUs)
  if (broken !== undefined) {
    const message = `${broken.reason} is damaged: what it said of the time from ${isoMs(broken.us)} on is unknown`
    return { kind: 'damaged', message, cause: '', fromUs: broken.us, toUs: null }
  }
  const loss = marks.find(({ type, us }) => type === 'gap' && us > image.us && us <= atUs)
  if (loss !== undefined) {
    const message = `inside a gap (${loss.reason}) from ${isoMs(loss.us)}; the events of that time are missing in the vault`
    return { kind: 'gap', message, cause: loss.reason, fromUs: loss.us, toUs: null }
  }
  if (mismatch !== undefined) {
    const message = `a checksum of the exchange did not match at ${isoMs(mismatch.us)}, and no image has come since`
    return { kind: 'checksum', message, cause: '', fromUs: mismatch.us, toUs: null }
  }
  if (atUs === last.us) return null
  if (next?.type === 'gap' && next.hour === hour) {
    const found = `${isoMs(next.us)} it was found that continuity was lost (${next.reason})`
    const message = `at ${found}: nothing proves the book after ${isoMs(last.us)}`
    return { kind: 'gap', message, cause: next.reason, fromUs: last.us, toUs: next.us }
  }
  if (end === undefined && (await isContinuation(feeds, replayed, marks))) return null
  const limitUs = Math.min(end?.us ?? FOREVER, next?.us ?? FOREVER, (hour + 1) * HOUR_US)
  if (end?.type === 'stopped' && end.hour === hour) {
    if (!replayed.isCut && !(await isContradicted(feeds, replayed, last.us + 1, end.us + 1))) return null
    const message = `lines are missing in the vault after ${isoMs(last.us)}, before the capture was stopped`
    return { kind: 'damaged', message, cause: '', fromUs: last.us, toUs: next?.us ?? null }
  }
  for await (const _ of proofs(feeds, replay, hour, atUs, limitUs)) return null
  return ofEnding(feeds, replayed, end, atUs)
}

/** Whether a line after the moment shows that the events up to it miss nothing. */
async function isContinuation(feeds: Feeds, replayed: Replayed, marks: readonly Mark[]): Promise<boolean> {
  const { next, hour } = replayed
  if (next === null) return false
  if (next.type === 'clear' && next.reason === 'hour')
    return next.hour === hour || (next.hour === hour + 1 && (await isTakenOver(feeds, replayed, next.hour)))
  if (next.hour !== hour) return false
  // A fresh image may be the first thing that another process wrote: only where the status tells of it, it tells of that too.
  return next.type !== 'clear' || marks.some(({ type, us }) => type === 'synced' && us === next.us)
}

/** What the lines themselves say. */
function fromLines({ doubt }: BookReplay, next: Mark | null): Distrust {
  const { kind, cause, us, place } = doubt ?? { kind: 'no_image', cause: '', us: null, place: '' }
  const toUs = next?.type === 'clear' ? next.us : null
  const until = toUs === null ? '' : ` until ${isoMs(toUs)}`
  const messages = {
    no_image: `the vault has no image of the book at or before the moment${toUs === null ? '' : `; the next is of ${isoMs(toUs)}`}`,
    gap: `inside a gap (${cause}) from ${us === null ? '?' : isoMs(us)}${until || ', with no image since'}`,
    damaged: `${place} is damaged, or lines are missing there: the book is unknown from then on${until}`
  }
  return { kind, message: messages[kind], cause, fromUs: us, toUs }
}

/** The process had ended before the moment. */
function ofEnd(end: Mark, lastUs: number, next: Mark | null): Distrust {
  const toUs = next?.us ?? null
  const until = toUs === null ? '' : `; the next image is of ${isoMs(toUs)}`
  if (end.type === 'stopped') {
    const message = `the capture was stopped at ${isoMs(end.us)} (${end.reason})${until}`
    return { kind: 'stopped', message, cause: end.reason, fromUs: end.us, toUs }
  }
  const died = `the capture ended without a word after ${isoMs(lastUs)}`
  const message = `${died}; the next one began at ${isoMs(end.us)}${until}`
  return { kind: 'killed', message, cause: '', fromUs: lastUs, toUs }
}

/** Nothing after the moment proves the book. */
function ofEnding(feeds: Feeds, { replay, hour, next }: Replayed, end: Mark | undefined, atUs: number): Distrust {
  const lastUs = replay.last?.us ?? hour * HOUR_US
  const toUs = next?.us ?? null
  const momentHour = hourOf(atUs)
  const others = [feeds.status, feeds.shots].flatMap(stream => stream?.hours ?? [])
  if (
    next !== null && next.hour > hour
      ? end === undefined
      : momentHour > hour && others.some(each => each.hour === momentHour)
  ) {
    const message = `events are missing in the vault after ${isoMs(lastUs)}: an hour has no file, or has lost its begin or its end`
    return { kind: 'hour_missing', message, cause: '', fromUs: lastUs, toUs }
  }
  if (end !== undefined) return ofEnd(end, lastUs, next)
  const seconds = ((atUs - lastUs) / 1_000_000).toFixed(3)
  const message = `the last event in the vault is of ${isoMs(lastUs)}, ${seconds} s before the moment, and nothing proves what came then`
  return { kind: 'behind', message, cause: '', fromUs: lastUs, toUs }
}
