/** What a check found, and the rules it is named by. */

/** `error`: data is wrong or lost without a mark. `warning`: look at it. `info`: worth knowing, nothing is wrong. */
export type Severity = 'error' | 'warning' | 'info'

/** Each rule: how bad its findings are, and what it demands, in one sentence. */
export const RULES = {
  torn_line: { severity: 'error', demands: 'every line is written whole' },
  bad_json: { severity: 'error', demands: 'every line is one JSON object' },
  bad_record: { severity: 'error', demands: 'every record has the keys and types of its schema, in its order' }
} as const satisfies Record<string, { severity: Severity; demands: string }>

/** The name of a rule. */
export type RuleId = keyof typeof RULES

/** One thing that is wrong with a vault, and where. */
export interface Finding {
  readonly rule: RuleId
  readonly severity: Severity
  /** Empty where it concerns no exchange, as `name` and `feed` where it concerns none. */
  readonly exchange: string
  /** The folder name of the instrument or connection. */
  readonly name: string
  readonly feed: string
  /** Relative to the vault, with forward slashes; empty where it concerns no file. */
  readonly file: string
  /** Counted from 1 in the uncompressed file; null where it concerns no line. */
  readonly line: number | null
  /** The moment it is about, µs; null where there is none. */
  readonly us: number | null
  /** What is wrong, in plain words. */
  readonly message: string
}
