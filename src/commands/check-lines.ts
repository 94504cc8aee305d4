/** The lines of one stream of a vault, hour after hour, for those who compare or merge several streams. */
import { existsSync } from 'node:fs'
import { L3capError, messageOf } from '../core/errors.ts'
import { HOUR_US } from '../core/time.ts'
import type { HourFile } from '../vault/layout.ts'
import { type LineBatch, placeOf, readHour, recvUsOf } from '../vault/streams.ts'

/** What is wrong with a file itself, and where in it: `line` is the first one that is concerned, null where none is. */
export type Trouble = (
  kind: 'damaged' | 'doubled' | 'tail' | 'unreadable',
  hour: HourFile,
  line: number | null,
  message: string
) => void

/** What a cursor reads; `onChars` is told of what was read. */
export interface CursorOptions {
  readonly vault: string
  readonly fromUs?: number | undefined
  readonly toUs?: number | undefined
  readonly trouble: Trouble
  readonly onChars?: (chars: number) => void
}

/** The end of a compressed file whose hour goes on in a plain one. */
interface End {
  readonly hour: number
  readonly us: number
  readonly text: string
  /** The lines of its last moment. */
  readonly lines: ReadonlySet<string>
}

const SHOWN_CHARS = 60

/**
 * Goes through the lines of a stream. `text` is the line at hand, `undefined` before the first and behind the last one. Lines
 * of a plain file that the compressed file of its hour holds already are told and passed over, as is what cannot be read. A file
 * that retention has compressed in the meantime is read as what it is now.
 */
export class LineCursor {
  /** The line at hand, and its merge key: its receive time, made to fit those around it where it cannot be right. */
  text: string | undefined
  key = Number.NEGATIVE_INFINITY
  /** Where it stands: relative to the vault, and the hour of the file. */
  file = ''
  hour = 0
  private lines: readonly string[] = []
  private at = 0
  private firstLine = 1
  private readonly hours: readonly HourFile[]
  private readonly options: CursorOptions
  private batches: AsyncGenerator<LineBatch> | undefined
  private current: HourFile | undefined
  private next_ = 0
  private end: End | undefined
  /** While lines repeat those of the compressed file. */
  private isRepeating = false
  private readLines = 0

  constructor(hours: readonly HourFile[], options: CursorOptions) {
    this.hours = hours
    this.options = options
  }

  /** The number of the line at hand. */
  get line(): number {
    return this.firstLine + this.at
  }

  /** The text of the k-th line behind the one at hand, where it is read already and stands in the same file. */
  peek(k: number): string | undefined {
    return this.lines[this.at + k]
  }

  /** Moves to the next line if it was read already; false: `fill` is needed. */
  advance(): boolean {
    this.at++
    if (this.at >= this.lines.length) return false
    this.set()
    return true
  }

  /** Reads until there is a line, and `ahead` more behind it in the same file; false at the end of the stream. */
  async fill(ahead = 0): Promise<boolean> {
    while (this.lines.length - this.at <= ahead) {
      const batch = await this.nextBatch()
      if (batch !== undefined) this.append(batch)
      else if (this.at < this.lines.length) break
      else if (!this.turn()) {
        this.text = undefined
        return false
      }
    }
    this.set()
    return true
  }

  private append(batch: LineBatch): void {
    const lines = this.isRepeating || this.readLines === 0 ? this.withoutRepeated(batch.lines) : batch.lines
    this.readLines += batch.lines.length
    if (lines.length === 0) return
    const left = this.lines.slice(this.at)
    if (left.length === 0) this.firstLine = batch.firstLine + batch.lines.length - lines.length
    else this.firstLine += this.at
    this.lines = left.length === 0 ? lines : left.concat(lines)
    this.at = 0
  }

  private set(): void {
    const text = this.lines[this.at]!
    this.text = text
    const ownUs = recvUsOf(text)
    const nextText = this.lines[this.at + 1]
    const nextUs = nextText === undefined ? Number.NaN : recvUsOf(nextText)
    const hourEndUs = (this.hour + 1) * HOUR_US - 1
    let us = nextUs < ownUs ? nextUs : ownUs
    if (us > hourEndUs) us = hourEndUs
    // What begins with a line without a time begins with the one behind it.
    if (this.key === Number.NEGATIVE_INFINITY && Number.isNaN(us)) us = nextUs
    if (us > this.key) this.key = us
  }

  private async nextBatch(): Promise<LineBatch | undefined> {
    if (this.batches === undefined) return undefined
    const file = this.current!
    try {
      const step = await this.batches.next()
      if (step.done !== true) {
        let chars = 0
        for (const line of step.value.lines) chars += line.length + 1
        this.options.onChars?.(chars)
        return step.value
      }
    } catch (error) {
      this.fail(file, error)
      return this.batches === undefined ? undefined : await this.nextBatch()
    }
    this.batches = undefined
    this.leave()
    return undefined
  }

  /** What a file that cannot be read to its end means. */
  private fail(file: HourFile, error: unknown): void {
    this.batches = undefined
    const isGone = error instanceof L3capError && (error.cause as NodeJS.ErrnoException | undefined)?.code === 'ENOENT'
    if (isGone) {
      // Retention was faster: the lines stand in the compressed file now, or were deleted.
      const compressed: HourFile = { ...file, kind: 'gz', path: `${file.path}.gz` }
      if (file.kind === 'jsonl' && existsSync(compressed.path)) this.open(compressed)
      return
    }
    const isDamaged = error instanceof L3capError && error.code === 'VAULT_DAMAGED'
    const line = this.lines.length === 0 ? this.readLines + 1 : this.firstLine + this.lines.length
    this.options.trouble(isDamaged ? 'damaged' : 'unreadable', file, line, withoutPath(messageOf(error), file.path))
    this.leave()
  }

  private leave(): void {
    const file = this.current
    const text = this.lines.at(-1)
    this.end = undefined
    if (file?.kind !== 'gz' || text === undefined) return
    const us = recvUsOf(text)
    this.end = { hour: file.hour, us, text, lines: new Set(this.lines.filter(line => recvUsOf(line) === us)) }
  }

  private turn(): boolean {
    const file = this.hours[this.next_++]
    if (file === undefined) return false
    this.lines = []
    this.at = 0
    if (this.end?.hour !== file.hour) this.end = undefined
    this.open(file)
    return true
  }

  private open(file: HourFile): void {
    const { vault, fromUs, toUs, trouble } = this.options
    this.current = file
    this.file = placeOf(vault, file.path)
    this.hour = file.hour
    this.firstLine = 1
    this.readLines = 0
    this.isRepeating = false
    const onTail = (tail: string, line: number): void =>
      trouble('tail', file, line, `ends with half a line: ${JSON.stringify(tail.slice(0, SHOWN_CHARS))}`)
    this.batches = readHour(file.path, { fromUs, toUs, onTail })
  }

  /** The lines without those at their begin that the compressed file of the hour holds, too. */
  private withoutRepeated(lines: readonly string[]): readonly string[] {
    const { end } = this
    const file = this.current!
    if (end === undefined) return lines
    if (!this.isRepeating) {
      if (!(recvUsOf(lines[0]!) < end.us) && !end.lines.has(lines[0]!)) return lines
      this.isRepeating = true
      const what = 'holds lines that the compressed file of its hour holds, too'
      if (file.kind === 'jsonl') this.options.trouble('doubled', file, 1, what)
    }
    for (const [at, line] of lines.entries()) {
      const us = recvUsOf(line)
      if (line !== end.text && !(us > end.us)) continue
      this.isRepeating = false
      return lines.slice(line === end.text ? at + 1 : at)
    }
    return []
  }
}

/** The message of an error about a file, without the path, which stands before it anyway. */
export function withoutPath(message: string, path: string): string {
  return message.replace(`${path} is damaged`, 'is damaged').replace(`cannot read ${path}`, 'cannot be read')
}
