/** Whether captures run as they should now, by what they say of themselves and by what has reached the disk. */
import { isoMs } from '../core/time.ts'
import { type Finding, RULES, type RuleId, type Severity } from './finding.ts'

/** One instrument as its process tells of it, and as the disk does. Moments in µs. */
export interface LiveInstrument {
  /** The folder name. */
  readonly name: string
  /** `waiting` has had no book yet, `broken` has lost it, `refused` is what the exchange does not give. */
  readonly state: 'live' | 'broken' | 'waiting' | 'refused'
  readonly sinceUs: number
  /** The last snapshot that was taken, and the last that a file holds; null: none. */
  readonly takenUs: number | null
  readonly storedUs: number | null
  /** How far the data are behind the exchange, as a rule; null where it tells no time. */
  readonly lagMs: number | null
}

/** One process that captures an exchange. */
export interface LiveProcess {
  readonly exchange: string
  /** Its health file, relative to the vault. */
  readonly file: string
  /** `gone`: it does not exist any more. `silent`: its health file is too old; `exists`: the process is there all the same. */
  readonly life: 'runs' | 'stopped' | 'gone' | 'silent' | 'exists'
  readonly pid: number
  readonly host: string
  /** When it began, and when it wrote of itself last. */
  readonly startedUs: number
  readonly saidUs: number
  readonly cadenceMs: number
  /** Why the writing is paused; null where it is not. */
  readonly pause: string | null
  readonly freeBytes: number | null
  readonly instruments: readonly LiveInstrument[]
}

/** Some cadences, and then some: what a busy machine may need. */
const CADENCES_MAX = 3
const GRACE_US = 5_000_000
const FIRST_BOOK_US = 30_000_000
/** A line is on the disk a tenth of a second after it was made. */
const STORED_US_MAX = 15_000_000
const LAG_MS_MAX = 10_000
const FREE_BYTES_MIN = 256 * 1024 * 1024
/** A lost book is back within so long. */
const OPEN_US_MAX = 60_000_000

/** What is wrong with a process as a whole. */
interface Fault {
  readonly rule: 'dead_capture' | 'dead_disk'
  readonly severity: Severity
  readonly message: string
}

/**
 * Judges processes at a moment. Of one that is dead, or whose disk is, nothing else is told, and that once, however many
 * exchanges it captures.
 */
export function judgeLive(processes: readonly LiveProcess[], nowUs: number, report: (finding: Finding) => void): void {
  const groups = new Map<string, { fault: Fault; of: LiveProcess[] }>()
  for (const each of processes) {
    const fault = faultOf(each, nowUs)
    if (fault === null) {
      judgeRunning(each, nowUs, report)
      continue
    }
    const key = `${each.host} ${each.pid} ${each.life} ${fault.rule}`
    const group = groups.get(key) ?? { fault, of: [] }
    groups.set(key, group)
    group.of.push(each)
  }
  for (const { fault, of } of groups.values()) {
    const [first, ...others] = of as [LiveProcess, ...LiveProcess[]]
    const exchanges = [...new Set(of.map(({ exchange }) => exchange))]
    const who = `process ${first.pid}${others.length === 0 ? '' : ` (${exchanges.join(', ')})`}`
    const exchange = exchanges.length === 1 ? first.exchange : ''
    const message = `${who} ${fault.message}`
    report({ ...fault, message, exchange, name: '', feed: '', file: first.file, line: null, us: nowUs })
  }
}

function faultOf(each: LiveProcess, nowUs: number): Fault | null {
  const { life, saidUs, pause } = each
  const said = isoMs(saidUs)
  const dead = (message: string, severity: Severity = 'error'): Fault => ({ rule: 'dead_capture', severity, message })
  const stuck = (message: string): Fault => ({ rule: 'dead_disk', severity: 'error', message })
  if (life === 'stopped') return dead(`was stopped at ${said}, and nobody went on`, 'warning')
  if (life === 'gone') return dead(`is gone without a word; it last said something at ${said}`)
  if (life === 'silent') return dead(`says nothing since ${said}`)
  if (life === 'exists') return stuck(`exists and says nothing since ${said}: it hangs, or its disk takes nothing`)
  if (pause !== null) return stuck(`cannot write: ${pause}`)
  const behind = each.instruments.find(({ takenUs, storedUs }) => {
    const isFresh = takenUs !== null && nowUs - takenUs < STORED_US_MAX
    return isFresh && takenUs - (storedUs ?? each.startedUs) > STORED_US_MAX
  })
  if (behind === undefined) return null
  const stored = behind.storedUs === null ? 'none is in a file' : `the last in a file is of ${isoMs(behind.storedUs)}`
  return stuck(`takes snapshots of ${behind.name}, but ${stored}`)
}

function judgeRunning(each: LiveProcess, nowUs: number, report: (finding: Finding) => void): void {
  const { exchange, file, freeBytes } = each
  const find = (rule: RuleId, message: string, name = '', severity: Severity = RULES[rule].severity): void =>
    report({ rule, severity, exchange, name, feed: '', file, line: null, us: nowUs, message })
  if (freeBytes !== null && freeBytes < FREE_BYTES_MIN) {
    const text = `${Math.floor(freeBytes / 1e6)} MB are free on the disk`
    find('dead_disk', text, '', freeBytes === 0 ? 'error' : 'warning')
  }
  judgeInstruments(each, nowUs, find)
}

function judgeInstruments(
  each: LiveProcess,
  nowUs: number,
  find: (rule: RuleId, message: string, name?: string) => void
): void {
  const mute = each.instruments.flatMap(instrument => {
    const why = muteness(instrument, each, nowUs)
    return why === null ? [] : [{ name: instrument.name, why }]
  })
  if (mute.length > 1 && mute.length === each.instruments.length) {
    find('mute_instrument', `none of ${mute.length} instruments has a live book; ${mute[0]!.name}: ${mute[0]!.why}`)
  } else for (const { name, why } of mute) find('mute_instrument', `${name}: ${why}`, name)
  for (const { name, lagMs } of each.instruments) {
    if (lagMs !== null && Math.abs(lagMs) > LAG_MS_MAX)
      find('late_data', `${name}: data are ${(lagMs / 1000).toFixed(1)} s behind the time of the exchange`, name)
  }
}

/** Why an instrument gives no snapshots; null where it does, or may still be about to. */
function muteness(instrument: LiveInstrument, { startedUs, cadenceMs }: LiveProcess, nowUs: number): string | null {
  const { state, sinceUs, takenUs } = instrument
  const limitUs = CADENCES_MAX * cadenceMs * 1000 + GRACE_US
  if (state === 'refused') return 'is refused by the exchange'
  if (state === 'waiting') {
    const isLong = nowUs - startedUs > FIRST_BOOK_US + limitUs
    return isLong ? `has had no book since the start at ${isoMs(startedUs)}` : null
  }
  if (state === 'broken') return nowUs - sinceUs > limitUs ? `has no book since ${isoMs(sinceUs)}` : null
  const lastUs = Math.max(takenUs ?? sinceUs, sinceUs)
  return nowUs - lastUs > limitUs ? `no snapshot was taken since ${isoMs(lastUs)}` : null
}

/** Judges the gaps of one instrument's recent past: `lostUs` and `backUs` (null: not yet) of each, and where it is told. */
export function judgeGap(
  gap: { readonly lostUs: number; readonly backUs: number | null; readonly cause: string },
  about: Pick<Finding, 'exchange' | 'name' | 'file' | 'line'>,
  nowUs: number
): Finding | null {
  const { lostUs, backUs, cause } = gap
  const lastedUs = (backUs ?? nowUs) - lostUs
  const rule = 'open_gap'
  if (backUs === null && lastedUs <= OPEN_US_MAX) return null
  const seconds = (lastedUs / 1e6).toFixed(1)
  const severity = backUs === null ? 'error' : 'warning'
  const message =
    backUs === null ? `the book is lost since ${seconds} s (${cause})` : `the book was lost for ${seconds} s (${cause})`
  return { rule, severity, ...about, feed: 'status', us: lostUs, message }
}
