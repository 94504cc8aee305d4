/** Compares what frames give, line by line, with what a vault holds of one exchange and hour. */
import type { Finding } from '../quality/finding.ts'
import type { HourFile } from '../vault/layout.ts'
import { hourPath } from '../vault/layout.ts'
import { placeOf, recvUsOf } from '../vault/streams.ts'
import { LineCursor, type Trouble } from './check-lines.ts'
import { makeFinding } from './check-tasks.ts'

/** The line of a frame that is played: relative to the vault, counted from 1. */
export interface FramePlace {
  readonly exchange: string
  readonly conn: string
  readonly file: string
  readonly line: number
  readonly frame: number
  readonly us: number
}

/** A line that the frames give. */
interface Expected {
  readonly us: number
  readonly text: string
  readonly from: FramePlace
}

/** Vault lines from `fromUs` on are passed over: up to `toUs`, or, where that is null, until lines agree again. */
interface Hole {
  readonly fromUs: number
  readonly toUs: number | null
}

/** A difference that was found, and whether what stands in the vault is too little, too much or another text. */
interface Difference {
  readonly kind: 'missing' | 'extra' | 'changed'
  readonly finding: Finding
  readonly us: number
  readonly from: FramePlace | undefined
  /** Of an event that stands otherwise. */
  readonly orderId?: string | undefined
  /** Of what is missing: when the line was received that stands at its place; infinite at the end. */
  readonly heldUs?: number
  /** A line of status that is missing, and would tell of a loss. */
  readonly isLoss?: boolean
}

/** A process died: the last of its frames, and when the next one began. */
export interface Death {
  readonly lastUs: number
  readonly nextUs: number
}

const LOOKAHEAD = 64
const SHOWN_CHARS = 160
const DIFFERENCES_MAX = 1000
/** How old a line may be that a power cut took. */
const LOSS_US_MAX = 3_000_000
/** A flagged snapshot is dated up to a millisecond later, so it may slip into the next hour. */
const FLAG_US = 1000
const EVENT_TYPE = '"event_type":'
const CLEAR = '"event_type":"clear"'
const SYNC = '"metadata":{"reason":"sync"}'
const MISMATCH = '"event":"checksum_mismatch"'
const MISMATCH_FIGURES = /"expected":(-?\d+),"computed":(-?\d+),"in_row":(\d+)/
const GAP = '"event":"gap"'
const OF_TRADES = '"channel":"trades","cause"'
const PAUSED = '"event":"writer_paused"'
const RESUMED = '"event":"writer_resumed"'

/** What is known of one instrument's differences. */
class InstrumentDoubt {
  readonly differences: Difference[] = []
  /** Differences of events that nothing has told yet whether they stand in the frame or in the event. */
  open: Difference[] = []
  /** Stretches in which the frames are known to be wrong, up to the next whole image. */
  readonly wrong: { fromUs: number; toUs: number }[] = []
  readonly clears: number[] = []
  /** A file cannot be read as it was written, which is told elsewhere: nothing is known by comparing it. */
  isSpoiled = false

  isWrong(us: number): boolean {
    return this.wrong.some(({ fromUs, toUs }) => us >= fromUs && us < toUs)
  }

  /** Whether an event of this order differs already. */
  hasDiffered(orderId: string | undefined): boolean {
    return orderId !== undefined && this.open.some(each => each.orderId === orderId)
  }

  keep(difference: Difference): void {
    // What is missing of status may be the key to all others.
    const isRare = difference.finding.feed === 'status'
    if (this.differences.length < (isRare ? 2 : 1) * DIFFERENCES_MAX) this.differences.push(difference)
  }

  /** The book agrees: what differed before is wrong in the events themselves. */
  agree(us: number): void {
    if (this.open.length === 0) return
    for (const each of this.open) if (each.us <= us) this.keep(each)
    this.open = this.open.filter(each => each.us > us)
  }

  /** The book differs; when an event did before, its frame is another than it was. True when that explains it. */
  disagree(us: number, why: string, orderId?: string): boolean {
    const first = this.open.find(each => each.us <= us && (orderId === undefined || each.orderId === orderId))
    if (first?.from === undefined) return false
    const { from } = first
    const toUs = this.clears.find(clearUs => clearUs > first.us) ?? Number.POSITIVE_INFINITY
    this.wrong.push({ fromUs: first.us, toUs })
    this.open = this.open.filter(each => !this.isWrong(each.us))
    const { finding } = first
    const what = `its frame does not give what stands in ${finding.file}:${finding.line ?? '?'}, and ${why}: ${finding.message}`
    const about = { exchange: from.exchange, name: from.conn, feed: 'frames', file: from.file }
    this.keep({
      kind: 'changed',
      us: from.us,
      from,
      finding: makeFinding('not_rebuilt', about, from.line, from.us, what)
    })
    return true
  }

  clear(us: number): void {
    this.clears.push(us)
    const last = this.wrong.at(-1)
    if (last?.toUs === Number.POSITIVE_INFINITY && us > last.fromUs) last.toUs = us
  }

  finish(): void {
    this.agree(Number.POSITIVE_INFINITY)
    for (const each of this.differences.filter(({ isLoss }) => isLoss)) this.blameFrame(each)
  }

  /**
   * The frames lose something that the capture did not: one of them cannot be read any more, if what it gave stands in the
   * vault and the mark of the loss does not.
   */
  private blameFrame(loss: Difference): void {
    const { from, us, finding } = loss
    if (from === undefined) return
    const isSame = (other: Difference) => other.us >= us && other.us <= us + FLAG_US
    const isBorne = this.differences.some(each => each !== loss && each.finding.feed !== 'status' && isSame(each))
    if (!isBorne) return
    const isTrades = finding.message.includes(OF_TRADES)
    const toUs = this.clears.find(clearUs => clearUs > us) ?? Number.POSITIVE_INFINITY
    const isBehind = (each: Difference) =>
      isSame(each) || (!isTrades && each.finding.feed !== 'trades' && each.us > us && each.us < toUs)
    const others = this.differences.filter(each => each.finding.feed === 'frames' || !isBehind(each))
    this.differences.length = 0
    const about = { exchange: from.exchange, name: from.conn, feed: 'frames', file: from.file }
    const what = `its frame cannot be read any more, and could when it came: ${finding.message}`
    this.differences.push(...others, {
      kind: 'changed',
      us,
      from,
      finding: makeFinding('not_rebuilt', about, from.line, us, what)
    })
  }
}

/** What a comparison of one exchange and hour needs to know. */
export interface ComparisonOptions {
  readonly vault: string
  readonly exchange: string
  readonly hour: number
  readonly toUs: number
  readonly derived: readonly HourFile[]
  /** Whether no frames were kept of what an instrument received at a moment, as far as lines were played. */
  isUnkept(name: string, us: number): boolean
}

/** One derived feed of one instrument. */
class FeedComparison {
  private readonly queue: (Expected | Hole)[] = []
  private readonly cursor: LineCursor
  private readonly about: Pick<Finding, 'exchange' | 'name' | 'feed' | 'file'>
  private readonly doubt: InstrumentDoubt
  private readonly options: ComparisonOptions
  private readonly feed: string
  private readonly hasFiles: boolean
  private isStarted = false
  /** Whether lines must be read before the cursor is looked at. */
  private isBehind = false
  private clearAt = -1
  private isAtEnd = false
  private isMissingTold = false
  private isResyncing = false
  private recent = ''
  private lastLine = 0
  private lastFile: string
  /** Lines that were missing and may stand further on, and lines that stood too early. */
  private readonly missed = new Set<string>()
  private readonly early = new Set<string>()
  /** The last lines of status that were left behind. */
  private readonly passed = new Set<string>()
  readonly pauses: { fromUs: number; toUs: number }[] = []

  constructor(feed: string, name: string, doubt: InstrumentDoubt, options: ComparisonOptions) {
    const { vault, exchange, hour, toUs, derived } = options
    // Who judges the instrument tells of what is wrong with its files.
    const trouble: Trouble = kind => {
      if (kind === 'damaged' || kind === 'unreadable') doubt.isSpoiled = true
    }
    const files = derived.filter(file => file.feed === feed && file.name === name)
    this.hasFiles = files.length > 0
    this.cursor = new LineCursor(files, { vault, toUs, trouble })
    this.lastFile = placeOf(vault, hourPath(vault, exchange, feed, name, hour))
    this.about = { exchange, name, feed, file: this.lastFile }
    this.feed = feed
    this.doubt = doubt
    this.options = options
  }

  append(item: Expected | Hole): void {
    this.queue.push(item)
  }

  /** Compares what is waiting and older than `beforeUs`, so that all lines of one frame are there. */
  async drain(beforeUs: number): Promise<void> {
    if (!this.isStarted) {
      this.isStarted = true
      this.isAtEnd = !(await this.cursor.fill(LOOKAHEAD))
    }
    let at = 0
    for (let item = this.queue[at]; item !== undefined; item = this.queue[at]) {
      const following = this.queue[at + 1]
      if (this.isBehind) await this.refill()
      if ('text' in item) {
        if (item.us >= beforeUs) break
        if (this.takeSame(item)) {
          at++
          continue
        }
        if (this.feed === 'status') await this.compareStatus(item)
        else {
          at += await this.compare(item, at)
          continue
        }
      } else {
        if ((following === undefined || usOf(following) >= beforeUs) && beforeUs < Number.POSITIVE_INFINITY) break
        await this.passHole(item, following)
      }
      at++
    }
    this.queue.splice(0, at)
    if (beforeUs === Number.POSITIVE_INFINITY) await this.finish()
  }

  /** Takes a line that stands in the vault as the frames give it, without waiting for anything; false where it does not. */
  private takeSame(item: Expected): boolean {
    const have = this.cursor.text
    const isStatus = this.feed === 'status'
    if (this.isAtEnd || isStatus || have === undefined || item.us >= this.options.toUs) return false
    if (!isSame(item.text, have)) return false
    this.noteClear(item)
    this.isResyncing = false
    if (isSnapshots(this.feed)) this.doubt.agree(item.us)
    this.step()
    return true
  }

  /** Leaves the line at hand; `isBehind` says whether the next ones must be read first. */
  private step(): void {
    this.lastLine = this.cursor.line
    this.lastFile = this.cursor.file
    const { text } = this.cursor
    if (text !== undefined) this.recent = text
    this.isBehind = !(this.cursor.advance() && this.cursor.peek(LOOKAHEAD) !== undefined)
  }

  private async refill(): Promise<void> {
    this.isBehind = false
    this.isAtEnd = !(await this.cursor.fill(LOOKAHEAD))
  }

  private async next(): Promise<void> {
    this.step()
    if (this.isBehind) await this.refill()
  }

  private async passHole(hole: Hole, following: Expected | Hole | undefined): Promise<void> {
    while (!this.isAtEnd && this.cursor.key < hole.fromUs) await this.passExtra(undefined)
    if (hole.toUs === null) {
      this.isResyncing = true
      return
    }
    const wanted = following !== undefined && 'text' in following ? following.text : undefined
    while (!this.isAtEnd && this.cursor.key <= hole.toUs && `${this.cursor.text}\n` !== wanted) await this.next()
  }

  /** Compares one line; the number of expected lines that are done with. */
  private async compare(item: Expected, at: number): Promise<number> {
    if (item.us >= this.options.toUs) return 1
    this.noteClear(item)
    const have = this.cursor.text
    if (this.isResyncing || this.doubt.isWrong(item.us)) return await this.compareLoosely(item)
    if (this.isAtEnd || have === undefined) {
      this.tellMissing([item])
      return 1
    }
    const again = this.align(at)
    if (again !== undefined) {
      await this.passDifferent(this.itemsAt(at, again.given), again.held, item)
      return again.given
    }
    // A line without a time stands for the one that is expected.
    const isTimed = !Number.isNaN(recvUsOf(have))
    if (isTimed && this.cursor.key > item.us) {
      this.tellMissing([item])
      return 1
    }
    if (isTimed && this.cursor.key < item.us) {
      await this.passExtra(item)
      return 0
    }
    await this.passDifferent([item], 1, item)
    return 1
  }

  /** What differs before both sides agree again: lines that stand in each other's place, then the rest of either side. */
  private async passDifferent(items: readonly Expected[], held: number, near: Expected): Promise<void> {
    let at = 0
    for (let k = 0; k < held; k++) {
      const item = items[at]
      const have = this.cursor.text!
      const isMoved = item === undefined || this.early.has(item.text) || this.missed.has(`${have}\n`)
      if (isMoved) await this.passExtra(item ?? near)
      else {
        this.noteClear(item)
        this.tellChanged(item, have)
        await this.next()
        at++
      }
    }
    for (const item of items.slice(at)) this.noteClear(item)
    if (at < items.length) this.tellMissing(items.slice(at))
  }

  /** Moves on without finding anything: what is older goes first. */
  private async compareLoosely(item: Expected): Promise<number> {
    if (this.isAtEnd || this.cursor.key > item.us) return 1
    const isOlder = this.cursor.key < item.us
    await this.next()
    return isOlder || this.isResyncing ? 0 : 1
  }

  private noteClear({ text, us }: Expected): void {
    if (!isEvents(this.feed)) return
    // The head of each line of an instrument is as long as that of the others.
    if (this.clearAt < 0) this.clearAt = text.indexOf(EVENT_TYPE)
    if (!text.startsWith(CLEAR, this.clearAt) || !text.includes(SYNC)) return
    if (this.doubt.clears.at(-1) !== us) this.doubt.clear(us)
  }

  /** The next lines that the frames give, as far as they can be compared. */
  private itemsAt(at: number, count: number): Expected[] {
    const items: Expected[] = []
    for (let k = at; k < at + count; k++) {
      const item = this.queue[k]
      if (item === undefined || !('text' in item)) break
      items.push(item)
    }
    return items
  }

  /** How many lines the frames give, and how many the vault holds, before both are the same again; undefined: too far. */
  private align(at: number): { given: number; held: number } | undefined {
    const items = this.itemsAt(at, LOOKAHEAD)
    for (let steps = 1; steps < LOOKAHEAD; steps++) {
      for (let given = Math.min(steps, items.length - 1); given >= 0; given--) {
        const held = steps - given
        const have = this.cursor.peek(held)
        if (have === undefined) break
        if (isSame(items[given]!.text, have)) return { given, held }
      }
    }
    return undefined
  }

  private here(): { file: string; line: number | null } {
    if (!this.isAtEnd) return { file: this.cursor.file, line: this.cursor.line }
    return { file: this.lastFile, line: this.hasFiles ? this.lastLine + 1 : null }
  }

  private tellMissing(all: readonly Expected[]): void {
    const items = all.filter(({ text }) => !this.early.delete(text))
    const first = items[0]
    if (first === undefined) return
    if (!this.hasFiles) {
      if (this.isMissingTold) return
      this.isMissingTold = true
      const message = 'is missing: the frames of the hour give lines of it'
      this.tell('extra', makeFinding('missing_feed', this.about, null, first.us, message), first.us, undefined)
      return
    }
    const { file, line } = this.here()
    if (this.missed.size > DIFFERENCES_MAX) this.missed.clear()
    for (const item of items) this.missed.add(item.text)
    const what = items.length === 1 ? 'a line is missing here' : `${items.length} lines are missing here`
    const source = `frame line ${first.from.file}:${first.from.line} gives ${shorten(first.text)}`
    const finding = makeFinding('not_rebuilt', { ...this.about, file }, line, first.us, `${what}: ${source}`)
    this.tell('missing', finding, first.us, first.from, first.text.includes(GAP))
  }

  private tellChanged(item: Expected, have: string): void {
    if (isSnapshots(this.feed) && this.doubt.disagree(item.us, 'the book after it differs too')) return
    const { file, line } = this.here()
    const message = `stands otherwise in the frames (${item.from.file}:${item.from.line}): ${difference(item.text, have)}`
    this.tell(
      'changed',
      makeFinding('not_rebuilt', { ...this.about, file }, line, item.us, message),
      item.us,
      item.from
    )
  }

  /** A line of the vault that the frames do not give; `item` is one that they give nearby. */
  private async passExtra(item: Expected | undefined): Promise<void> {
    const have = this.cursor.text!
    const us = this.cursor.key
    const { file, line } = this.here()
    const isMoved = this.missed.delete(`${have}\n`)
    const isSlipped = us < this.options.hour * 3_600_000_000 + FLAG_US && have.includes('"gap_detected":true')
    const isUnkept = this.options.isUnkept(this.about.name, us)
    if (!isMoved && !isSlipped && !isUnkept && !this.isResyncing && !this.doubt.isWrong(us)) {
      if (this.early.size > DIFFERENCES_MAX) this.early.clear()
      if (have !== this.recent) this.early.add(`${have}\n`)
      const what = have === this.recent ? 'stands twice' : `the frames do not give it: ${shorten(have)}`
      const finding = makeFinding('not_rebuilt', { ...this.about, file }, line, us, what)
      this.tell('extra', finding, us, item && sourceOf(have, item.from))
    }
    await this.next()
  }

  private tell(
    kind: Difference['kind'],
    finding: Finding,
    us: number,
    from: FramePlace | undefined,
    isLoss = false
  ): void {
    const difference = {
      kind,
      finding,
      us,
      from,
      orderId: kind === 'changed' ? orderIdOf(this.cursor.text) : undefined,
      heldUs: this.isAtEnd || this.feed === 'status' ? Number.POSITIVE_INFINITY : this.cursor.key,
      isLoss: this.feed === 'status' && kind === 'missing' && isLoss
    }
    // One wrong line of events has no effect on those that the frames give.
    const { orderId } = difference
    if (this.doubt.hasDiffered(orderId) && this.doubt.disagree(us, 'a later event of its order differs too', orderId))
      return
    const isEvent = isEvents(this.feed)
    if (isEvent && from !== undefined && this.doubt.open.length < DIFFERENCES_MAX) this.doubt.open.push(difference)
    else this.doubt.keep(difference)
  }

  /** The status feed holds more than the frames tell: each line that they tell must be among its own. */
  private async compareStatus(item: Expected): Promise<void> {
    if (item.us >= this.options.toUs) return
    while (!this.isAtEnd && this.cursor.key < item.us) await this.passStatus()
    // One that stands out of its order is there all the same.
    if (this.passed.has(item.text)) return this.tellKnownMismatch(item)
    for (let k = 0; k < LOOKAHEAD; k++) {
      const have = this.cursor.peek(k)
      if (this.isAtEnd || have === undefined) break
      if (isSame(item.text, have)) return this.tellKnownMismatch(item)
    }
    if (item.text.includes(MISMATCH) && this.hasBlurred()) return
    const isChanged = this.cursor.text?.includes(MISMATCH) && this.cursor.key === item.us
    if (item.text.includes(MISMATCH) && !isChanged) return this.tellMismatch(item)
    if (!this.doubt.isWrong(item.us)) this.tellMissing([item])
  }

  /** Whether a line of status about here cannot be read, which is told elsewhere. */
  private hasBlurred(): boolean {
    return [[...this.passed].at(-1)?.slice(0, -1), this.cursor.peek(0), this.cursor.peek(1)].some(
      text => text !== undefined && !isObject(text)
    )
  }

  private async passStatus(): Promise<void> {
    const text = this.cursor.text!
    if (text.includes(PAUSED)) this.pauses.push({ fromUs: this.cursor.key - 1_000_000, toUs: Number.POSITIVE_INFINITY })
    const last = this.pauses.at(-1)
    if (last !== undefined && text.includes(RESUMED)) last.toUs = this.cursor.key
    if (this.passed.size > LOOKAHEAD) this.passed.clear()
    this.passed.add(`${text}\n`)
    await this.next()
  }

  /** A mismatch of the frames that the capture did not see. */
  private tellMismatch(item: Expected): void {
    if (this.doubt.isWrong(item.us) || this.doubt.disagree(item.us, 'the next checksum does not fit')) return
    const found = MISMATCH_FIGURES.exec(item.text)
    if (found?.[3] !== '1') return
    this.keepMismatch(item, found, 'status tells of none', 'error')
  }

  /** A mismatch that the capture saw, and told of. */
  private tellKnownMismatch(item: Expected): void {
    const found = item.text.includes(MISMATCH) ? MISMATCH_FIGURES.exec(item.text) : null
    if (found !== null) this.keepMismatch(item, found, 'status tells of it', 'warning')
  }

  private keepMismatch(item: Expected, figures: readonly string[], end: string, severity: Finding['severity']): void {
    const { exchange, conn, file, line, us } = item.from
    const about = { exchange, name: conn, feed: 'frames', file }
    const what = `the frames give a book with checksum ${figures[2]}, the exchange sent ${figures[1]}, and ${end}`
    const finding = { ...makeFinding('checksum_mismatch', about, line, us, what), severity }
    this.doubt.keep({ kind: 'changed', us, from: item.from, finding })
  }

  private async finish(): Promise<void> {
    if (this.isBehind) await this.refill()
    if (this.feed === 'status') while (!this.isAtEnd) await this.passStatus()
    else while (!this.isAtEnd) await this.passExtra(undefined)
  }
}

/** Compares the derived lines of an exchange and hour, as the frames give them one after the other, with the vault's. */
export class Comparison {
  private readonly options: ComparisonOptions
  private readonly feeds = new Map<string, FeedComparison>()
  private readonly doubts = new Map<string, InstrumentDoubt>()
  /** From when on the book of an instrument cannot be compared. */
  private readonly broken = new Map<string, number>()
  private readonly brokenStatus = new Set<string>()
  /** Lines come in long rows of one feed. */
  private recent: { feed: string; name: string; comparison: FeedComparison } | undefined
  /** Characters that wait to be compared. */
  pendingChars = 0
  /** The line that is played now. */
  place: FramePlace | undefined

  constructor(options: ComparisonOptions) {
    this.options = options
  }

  /** Takes a line that the frames give, with its line end; `name` is the folder of the instrument. */
  append(feed: string, name: string, us: number, text: string): void {
    const isBook = feed !== 'status' && feed !== 'trades'
    if (feed === 'status' && this.brokenStatus.has(name)) return
    const brokenUs = isBook ? this.broken.get(name) : undefined
    if (brokenUs !== undefined) {
      if (!text.includes(CLEAR) || !text.includes(SYNC)) return
      this.broken.delete(name)
      this.comparison(feed, name)
      for (const each of this.bookFeeds(name)) each.append({ fromUs: brokenUs, toUs: us })
    }
    this.pendingChars += text.length
    this.comparison(feed, name).append({ us, text, from: this.place! })
  }

  /** Frames of instruments are damaged from a moment on: their books cannot be compared until the next image. */
  spoil(names: readonly string[], us: number, hasBook: boolean): void {
    for (const name of names) {
      if (hasBook && !this.broken.has(name)) this.broken.set(name, us)
      this.brokenStatus.add(name)
      this.comparison('trades', name).append({ fromUs: us, toUs: null })
    }
  }

  /** The book feeds of an instrument: those that the vault has, and those that the frames gave. */
  private bookFeeds(name: string): FeedComparison[] {
    const held = this.options.derived.filter(file => file.name === name).map(({ feed }) => feed)
    const given = [...this.feeds.keys()].flatMap(key =>
      key.endsWith(`/${name}`) ? [key.slice(0, key.indexOf('/'))] : []
    )
    const feeds = new Set([...held, ...given].filter(feed => feed !== 'status' && feed !== 'trades'))
    return [...feeds].map(feed => this.comparison(feed, name))
  }

  private comparison(feed: string, name: string): FeedComparison {
    const recent = this.recent
    if (recent?.feed === feed && recent.name === name) return recent.comparison
    const key = `${feed}/${name}`
    let found = this.feeds.get(key)
    if (found === undefined) {
      const doubt = this.doubts.get(name) ?? new InstrumentDoubt()
      this.doubts.set(name, doubt)
      found = new FeedComparison(feed, name, doubt, this.options)
      this.feeds.set(key, found)
    }
    this.recent = { feed, name, comparison: found }
    return found
  }

  /** Compares what waits: events first, as what differs in them explains what differs in the others. */
  async drain(beforeUs = this.place?.us ?? 0): Promise<void> {
    const rank = (key: string) => (/^l\d_(?:events|updates)/.test(key) ? 0 : key.startsWith('status') ? 1 : 2)
    const feeds = [...this.feeds].sort(([a], [b]) => rank(a) - rank(b))
    for (const [, feed] of feeds) await feed.drain(beforeUs)
    this.pendingChars = 0
  }

  /** Compares the rest, and tells what differs; `deathsOf` an instrument say what may be missing. */
  async finish(deathsOf: (name: string) => readonly Death[], report: (finding: Finding) => void): Promise<void> {
    for (const [name, fromUs] of this.broken) {
      for (const each of this.bookFeeds(name)) each.append({ fromUs, toUs: Number.POSITIVE_INFINITY })
    }
    await this.drain(Number.POSITIVE_INFINITY)
    for (const [name, doubt] of this.doubts) {
      if (doubt.isSpoiled) continue
      doubt.finish()
      const pauses = this.feeds.get(`status/${name}`)?.pauses ?? []
      const deaths = deathsOf(name)
      for (const { kind, us, finding, heldUs = Number.POSITIVE_INFINITY } of doubt.differences) {
        // A power cut may have kept a record and taken its frame, or the other way round; what it takes is the end of a file.
        const isLost = deaths.some(
          ({ lastUs, nextUs }) => us >= lastUs - LOSS_US_MAX && us <= nextUs && heldUs >= nextUs
        )
        const isCut = deaths.some(({ lastUs, nextUs }) => us >= lastUs && us <= nextUs)
        const isPaused = pauses.some(({ fromUs, toUs }) => us >= fromUs && us <= toUs)
        if (kind === 'missing' ? !isLost && !isPaused : !isCut) report(finding)
      }
    }
    this.tellUnfounded(report)
  }

  /** Derived files that the frames of the hour give nothing of. */
  private tellUnfounded(report: (finding: Finding) => void): void {
    const told = new Set<string>()
    for (const file of this.options.derived) {
      const key = `${file.feed}/${file.name}`
      if (file.feed === 'status' || this.feeds.has(key) || told.has(key)) continue
      told.add(key)
      const about = { ...file, file: placeOf(this.options.vault, file.path) }
      report(
        makeFinding('no_frames', about, null, file.hour * 3_600_000_000, 'the frames of the hour give nothing of it')
      )
    }
  }
}

function isObject(text: string): boolean {
  try {
    JSON.parse(text)
    return text.endsWith('}')
  } catch {
    return false
  }
}

function orderIdOf(record: string | undefined): string | undefined {
  return /"order_id":"([^"]*)"/.exec(record ?? '')?.[1]
}

function usOf(item: Expected | Hole): number {
  return 'text' in item ? item.us : item.fromUs
}

/** The place of the frame that a record names, counted from that of another one of the same connection. */
function sourceOf(record: string, near: FramePlace): FramePlace | undefined {
  const found = /"conn":"([^"]*)","frame":(\d+)/.exec(record)
  if (found === null || found[1] !== near.conn) return undefined
  const frame = Number(found[2])
  return { ...near, frame, line: near.line + frame - near.frame }
}

/** `expected` ends in a line end. */
function isSame(expected: string, have: string): boolean {
  return expected.length === have.length + 1 && expected.startsWith(have)
}

function isEvents(feed: string): boolean {
  return feed === 'l3_events' || feed === 'l2_updates'
}

function isSnapshots(feed: string): boolean {
  return feed !== 'trades' && feed !== 'status' && !isEvents(feed)
}

function shorten(text: string): string {
  const line = text.trimEnd()
  return line.length <= SHOWN_CHARS ? line : `${line.slice(0, SHOWN_CHARS)}…`
}

/** Where two lines begin to differ, in words. */
function difference(expected: string, have: string): string {
  let at = 0
  while (at < have.length && expected[at] === have[at]) at++
  const from = Math.max(0, at - SHOWN_CHARS / 4)
  const cut = (text: string) => `${from > 0 ? '…' : ''}${shorten(text.slice(from))}`
  return `from character ${at + 1} on the frames give ${cut(expected)}, and here stands ${cut(have)}`
}
