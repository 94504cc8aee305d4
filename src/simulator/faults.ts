import { parseDuration } from '../core/time.ts'
import { createRandom } from './random.ts'

/** The kinds of trouble a simulator can make, with what the part after `:` means in the text of a fault. */
const KINDS = {
  drop: 'none',
  duplicate: 'none',
  reorder: 'none',
  'corrupt-checksum': 'none',
  mute: 'duration',
  close: 'code',
  maintenance: 'duration',
  'restart-notice': 'duration',
  'rest-error': 'status',
  'stale-image': 'none',
  refuse: 'none',
  'silent-ack': 'none',
  'drop-trade': 'none'
} as const

/** What goes wrong. See `Fault`. */
export type FaultKind = keyof typeof KINDS

/** The kinds, in the order of the help text. */
export const FAULT_KINDS = Object.keys(KINDS) as FaultKind[]

/** The kinds that trouble frames and connections: what most exchanges know, and what random faults are made of. */
export const COMMON_FAULT_KINDS: readonly FaultKind[] = FAULT_KINDS.slice(0, 8)

/**
 * One thing that goes wrong.
 *
 * `drop`, `duplicate` and `reorder` concern the next book update, `corrupt-checksum` the next checksum, of the
 * instrument on every socket that is subscribed to it then; while nobody is, the fault waits for the first subscriber.
 * `mute` silences the sockets that are open then, everything included; with an instrument it silences that instrument's
 * subscriptions only, and a new subscription is heard again. What is said during a mute is lost. `close` ends the open
 * sockets, or those subscribed to the instrument's book. `maintenance` and `restart-notice` are announced as the
 * exchange announces them.
 *
 * The others wait for whoever is next. `rest-error`: the next REST request for a book image is answered with an HTTP
 * error. `stale-image`: the next image that a client asks for is older than its subscription. `refuse`: the next book
 * subscription is refused with the exchange's own words. `silent-ack`: it is acknowledged, and then nothing comes.
 * `drop-trade`: the next frame of trades is lost.
 */
export interface Fault {
  kind: FaultKind
  /** When, in milliseconds since the start of the simulator, or since `inject`; now if absent. */
  afterMs?: number
  /** The exchange's own name of the instrument; any if absent. */
  instrument?: string
  /**
   * Milliseconds: how long a mute (10 s if absent) or a maintenance pause (10 s) lasts, or a restart notice holds (3 to
   * 5 s).
   */
  ms?: number
  /** The close code; 1006 (if absent) ends the connection without a close frame. */
  code?: number
  /** The HTTP status of a `rest-error`, 500 if absent; 418 and 429 come with `Retry-After: 1`. */
  status?: number
}

/**
 * Reads the text of a fault: `KIND[@WHEN][:DETAIL][/INSTRUMENT]`, such as `drop@5s`, `mute@10s:20s`, `close@30s:1012`
 * or `corrupt-checksum@12s/BTCUSD`. The detail is the length of a mute, of a maintenance or of a notice, a close code,
 * or the HTTP status of a `rest-error`. Undefined when the text is not a fault.
 */
export function parseFault(text: string): Fault | undefined {
  const match = /^([a-z-]+)(?:@([^:/]+))?(?::([^/]+))?(?:\/(\S+))?$/.exec(text.trim())
  if (!match) return undefined
  const [, kind, when, detail, instrument] = match
  if (!Object.hasOwn(KINDS, kind!)) return undefined
  const fault: Fault = { kind: kind as FaultKind }
  if (when !== undefined) {
    const afterMs = parseDuration(when)
    if (afterMs === undefined) return undefined
    fault.afterMs = afterMs
  }
  if (detail !== undefined && !readDetail(fault, detail)) return undefined
  if (instrument !== undefined) fault.instrument = instrument
  return fault
}

function readDetail(fault: Fault, detail: string): boolean {
  const meaning = KINDS[fault.kind]
  if (meaning === 'none') return false
  if (meaning === 'code') {
    const code = /^\d{4}$/.test(detail) ? Number.parseInt(detail, 10) : 0
    if (!isCloseCode(code)) return false
    fault.code = code
    return true
  }
  if (meaning === 'status') {
    if (!/^[45]\d\d$/.test(detail)) return false
    fault.status = Number.parseInt(detail, 10)
    return true
  }
  const ms = parseDuration(detail)
  if (ms === undefined) return false
  fault.ms = ms
  return true
}

/** True for the codes a server may put into a close frame, and for 1006, which here means no close frame at all. */
export function isCloseCode(code: number): boolean {
  return (code >= 1000 && code <= 1014 && code !== 1004 && code !== 1005) || (code >= 3000 && code <= 4999)
}

/**
 * Spreads `count` faults of random kinds over `durationMs` milliseconds, one in each equal part of it, in order of
 * time. The same arguments give the same faults. Faults of a single frame or answer and half of the mutes name one of
 * the instruments.
 */
export function randomFaults(
  seed: number,
  count: number,
  durationMs: number,
  instruments: readonly string[],
  kinds: readonly FaultKind[] = COMMON_FAULT_KINDS
): Fault[] {
  const random = createRandom(seed)
  const faults: Fault[] = []
  for (let index = 0; index < count; index++) {
    const afterMs = Math.floor(((index + random.next()) * durationMs) / count)
    const fault: Fault = { kind: random.pick(kinds), afterMs }
    const meaning = KINDS[fault.kind]
    const isOfOne = meaning === 'none' || meaning === 'status'
    const isNarrow = isOfOne || (fault.kind === 'mute' && random.next() < 0.5)
    if (isNarrow && instruments.length > 0) fault.instrument = random.pick(instruments)
    if (meaning === 'duration') fault.ms = 1000 + random.integer(4000)
    if (meaning === 'code') fault.code = random.pick([1000, 1001, 1006, 1012])
    if (meaning === 'status') fault.status = random.pick([429, 500, 503])
    faults.push(fault)
  }
  return faults
}
