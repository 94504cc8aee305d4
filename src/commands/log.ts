import { join } from 'node:path'
import { type Logger, multistream, pino } from 'pino'
import roll from 'pino-roll'

/** A logger and how to end it. */
export interface Log {
  readonly logger: Logger
  /** Called before each line that goes to standard output; the panel on a terminal makes room for it. */
  beforeLine: () => void
  end(): void
}

const FILES_KEPT = 10

const WINDOW_MS = 10_000
const LINES_OF_A_KIND_MAX = 100

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
 * Lines are written at once: a process that is killed has logged what it said.
 */
export async function openLog(level: string, directory: string, quietTerminal: boolean): Promise<Log> {
  const file = await roll({
    file: join(directory, 'l3cap'),
    extension: '.log',
    frequency: 'daily',
    size: '20m',
    dateFormat: 'yyyy-MM-dd',
    mkdir: true,
    limit: { count: FILES_KEPT, removeOtherLogFiles: true },
    sync: true
  })
  const terminal = process.stdout.isTTY === true
  const out = terminal
    ? (await import('pino-pretty')).default({ sync: true, translateTime: 'SYS:HH:MM:ss.l', ignore: 'pid,hostname' })
    : process.stdout
  const writeLine = (line: string) => {
    log.beforeLine()
    out.write(line)
  }
  const streams = multistream([
    { level: terminal && quietTerminal ? 'warn' : 'trace', stream: { write: line => writeLine(line) } },
    { level: 'trace', stream: file }
  ])
  const logger = pino({ level, base: { pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime }, streams)
  const log: Log = { logger, beforeLine: () => undefined, end: () => file.flushSync() }
  return log
}
