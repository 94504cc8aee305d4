import { join } from 'node:path'
import { Writable } from 'node:stream'
import { type Logger, multistream, pino } from 'pino'
import roll, { type RollStream } from 'pino-roll'
import { L3capError, messageOf } from '../core/errors.ts'
import { printable } from '../core/printable.ts'

/** A logger and how to end it. */
export interface Log {
  readonly logger: Logger
  /** Called before each line that goes to standard output; the panel on a terminal makes room for it. */
  beforeLine: () => void
  end(): void
}

const FILES_KEPT = 10
const FILE_MODE = 0o640

const WINDOW_MS = 10_000
const LINES_OF_A_KIND_MAX = 100

/** Log lines that wait for a disk that takes none; more are left out. */
const WAITING_CHARS_MAX = 1024 * 1024
const COMPLAINT_MS = 60_000

/** Keeps a flood of lines of one kind (an exchange that sends nonsense) from filling the logs. */
export class Flood {
  private readonly counts = new Map<string, number>()
  private windowMs = 0

  /** Whether a line of this kind may be written; `dropped` hears how many were not, when the window ends. */
  admit(kind: string, nowMs: number, dropped: (kind: string, count: number) => void): boolean {
    if (nowMs - this.windowMs > WINDOW_MS) {
      for (const [name, count] of this.counts)
        if (count > LINES_OF_A_KIND_MAX) dropped(name, count - LINES_OF_A_KIND_MAX)
      this.counts.clear()
      this.windowMs = nowMs
    }
    const count = (this.counts.get(kind) ?? 0) + 1
    this.counts.set(kind, count)
    return count <= LINES_OF_A_KIND_MAX
  }
}

/**
 * Logs to standard output, human-readable on a terminal and JSON lines otherwise, and to rotated files in `directory`.
 * Lines are written at once: a process that is killed has logged what it said. Where one of the two takes no more lines (a
 * full disk, a reader that has gone), that is said to the other, and the process goes on. Rejects with `L3capError` CONFIG
 * when the files cannot be begun.
 */
export async function openLog(level: string, directory: string, quietTerminal: boolean): Promise<Log> {
  const file = await openFiles(directory)
  const terminal = process.stdout.isTTY === true
  const pretty = { sync: true, translateTime: 'SYS:HH:MM:ss.l', ignore: 'pid,hostname' } as const
  let complainedMs = Number.NEGATIVE_INFINITY
  const complain = (error: unknown, what: string) => {
    if (performance.now() - complainedMs < COMPLAINT_MS) return
    complainedMs = performance.now()
    logger.error({ error: messageOf(error) }, what)
  }
  const output = new Output(error => complain(error, 'Standard output takes no log lines'))
  let isRefused = false
  file.on('write', () => {
    isRefused = false
  })
  file.on('error', error => {
    isRefused = true
    complain(error, 'Log file takes no lines')
  })
  const out = terminal ? (await import('pino-pretty')).default({ ...pretty, destination: output }) : output
  const writeLine = (line: string) => {
    log.beforeLine()
    out.write(terminal ? harmless(line) : line)
  }
  const streams = multistream([
    { level: terminal && quietTerminal ? 'warn' : 'trace', stream: { write: line => writeLine(line) } },
    { level: 'trace', stream: file }
  ])
  const logger = pino({ level, base: { pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime }, streams)
  // Lines wait only where the disk refused the last ones, and there a flush would try for ever.
  const end = () => (isRefused ? undefined : file.flushSync())
  const log: Log = { logger, beforeLine: () => undefined, end }
  return log
}

/** A line for a terminal: what others said in it shows its control characters, and is not obeyed. */
function harmless(line: string): string {
  const clean = (_: string, value: unknown): unknown => {
    if (typeof value === 'string') return printable(value)
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [printable(key), each]))
  }
  return `${JSON.stringify(JSON.parse(line), clean)}\n`
}

async function openFiles(directory: string): Promise<RollStream> {
  try {
    return await roll({
      file: join(directory, 'l3cap'),
      extension: '.log',
      frequency: 'daily',
      size: '20m',
      dateFormat: 'yyyy-MM-dd',
      mkdir: true,
      limit: { count: FILES_KEPT, removeOtherLogFiles: true },
      sync: true,
      mode: FILE_MODE,
      maxLength: WAITING_CHARS_MAX
    })
  } catch (error) {
    throw new L3capError('CONFIG', `log-dir: ${messageOf(error)}`, { cause: error })
  }
}

/** Standard output, which may refuse at any time: a pipe without a reader, a file on a full disk, a terminal that is gone. */
class Output extends Writable {
  private readonly refused: (error: unknown) => void
  private isGone = false

  constructor(refused: (error: unknown) => void) {
    super({ decodeStrings: false })
    this.refused = refused
    process.stdout.on('error', error => {
      this.isGone = true
      refused(error)
    })
  }

  override _write(chunk: string | Buffer, _encoding: string, done: () => void): void {
    try {
      if (!this.isGone) process.stdout.write(chunk)
    } catch (error) {
      // Files are written at once, so that the refusal of a full disk comes here.
      this.refused(error)
    }
    done()
  }
}
