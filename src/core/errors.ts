/**
 * Every error that l3cap raises on purpose, with the exit code of the command and the advice a user sees.
 * Expected trouble of a capture (gaps, refusals, lost connections) is never an error: it is data.
 */
const ERRORS = {
  USAGE: { exit: 2, advice: 'see `l3cap <command> --help`' },
  CONFIG: { exit: 2, advice: 'correct the configuration; nothing was started' },
  SYMBOL_UNKNOWN: { exit: 2, advice: 'see `l3cap instruments --list` for what the exchange offers' },
  LOCKED: { exit: 3, advice: 'stop the other process, or give this one another vault' },
  VAULT: { exit: 1, advice: 'look at the vault directory: permissions, free space, mount' },
  VAULT_DAMAGED: { exit: 1, advice: 'run `l3cap repair`, or leave the named file out' },
  NOT_LIVE: { exit: 1, advice: 'look at the logs of the process named; without one, start it' },
  UNTRUSTED: { exit: 1, advice: 'see `l3cap coverage` for when it can be trusted' },
  FINDINGS: { exit: 1, advice: 'src/quality/README.md has what each rule demands' },
  REST: { exit: 1, advice: 'look at the network and at the status page of the exchange' },
  DECIMAL: { exit: 1, advice: 'the exchange sent number text that is no plain decimal' }
} as const

/** The stable codes. */
export type ErrorCode = keyof typeof ERRORS

/** An error with a stable `code`, the facts, and what to do about it. */
export class L3capError extends Error {
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = 'L3capError'
    this.code = code
  }

  /** The exit code of a command that ends with this error. */
  get exit(): number {
    return ERRORS[this.code].exit
  }

  /** One sentence of advice for the user. */
  get advice(): string {
    return ERRORS[this.code].advice
  }
}

/** Throws on a mistake of the program itself. */
export function assert(condition: unknown, what: string): asserts condition {
  if (!condition) throw new Error(`assertion failed: ${what}`)
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
