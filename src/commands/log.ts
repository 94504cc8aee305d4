import { join } from 'node:path'
import { type Logger, multistream, pino } from 'pino'
import roll from 'pino-roll'

/** A logger and how to end it. */
export interface Log {
  readonly logger: Logger
  end(): void
}

const FILES_KEPT = 10

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
  const streams = multistream([
    { level: terminal && quietTerminal ? 'warn' : 'trace', stream: out },
    { level: 'trace', stream: file }
  ])
  const logger = pino({ level, base: { pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime }, streams)
  return { logger, end: () => file.flushSync() }
}
