/**
 * From the findings of check after check to what people are told: one incident for each cause, told once when it begins
 * and once when it has ended.
 *
 * Nothing is queued. The state holds the incidents there are and what each receiver was told; what a receiver is still to
 * hear is the difference between the two. So what could not be delivered comes again with the next round, each receiver
 * by itself.
 */
import { createHash } from 'node:crypto'
import { asObject } from '../core/json.ts'
import type { Finding, RuleId } from './finding.ts'

/** What an incident is about: a rule of the check, a check that could not be made, or more alerts than are sent at once. */
export type AlertRule = RuleId | 'check_failed' | 'backlog'

/** All findings of one rule about one stream: one cause, however many places it shows in. */
export interface Incident {
  /** `<rule>:<exchange>:<name>:<feed>`: the same in every round, whatever the lines and figures are. */
  readonly key: string
  readonly rule: AlertRule
  /** One sentence: what it is about, what was found first, and in how many places. */
  readonly summary: string
  /** Findings in the last round that had it. */
  readonly count: number
  /** The first few files, relative to the vault. */
  readonly files: readonly string[]
  /** The first few findings, their messages cut to a bearable length. */
  readonly findings: readonly Finding[]
  /** The round that had it first, µs since the epoch. */
  readonly sinceUs: number
  /** Rounds in a row that did not have it any more. */
  readonly absentRounds: number
}

/** What is remembered from one check to the next. */
export interface AlertState {
  /** The moment of the last round, µs since the epoch. */
  readonly atUs: number
  readonly incidents: readonly Incident[]
  /** For each receiver the keys it was told, and the count it was told with each. */
  readonly told: Readonly<Record<string, Readonly<Record<string, number>>>>
}

/** One check: its findings, or why it could not be made. */
export type Round = { readonly findings: readonly Finding[] } | { readonly failure: string }

/** Something that a receiver is to hear. */
export interface Alert {
  readonly event: 'trigger' | 'update' | 'resolve'
  readonly incident: Incident
}

/** Before the first check. */
export const EMPTY_STATE: AlertState = { atUs: 0, incidents: [], told: {} }

/** A finding about the last minutes goes by itself, and may come back: an incident has ended when so many rounds lack it. */
const ABSENT_ROUNDS_MAX = 2
/** An open incident is told again when it shows in so many times more places. */
const GROWTH = 10
/** Alerts for one receiver in one round, besides the one that says that there are more. */
const ALERTS_MAX = 10
const DETAILS_MAX = 5
const MESSAGE_CHARS_MAX = 300
const BACKLOG = 'backlog'
const HASH_CHARS = 16

/**
 * The state after a round. `receivers`: who is told now; what others were told is forgotten. A check that could not be made
 * is an incident of its own and says nothing about the others: they stay as they are.
 */
export function nextState(state: AlertState, round: Round, nowUs: number, receivers: readonly string[]): AlertState {
  const current = 'findings' in round ? incidentsOf(round.findings, nowUs, state) : [failureOf(round.failure, nowUs)]
  const before = new Map(state.incidents.map(incident => [incident.key, incident]))
  const now = new Map(current.map(incident => [incident.key, incident]))
  const told = Object.fromEntries(receivers.map(receiver => [receiver, state.told[receiver] ?? {}]))
  const gone = state.incidents.flatMap(incident => {
    if (now.has(incident.key)) return []
    const absentRounds = incident.absentRounds + ('findings' in round ? 1 : 0)
    const isOver = absentRounds >= ABSENT_ROUNDS_MAX && !receivers.some(each => told[each]![incident.key] !== undefined)
    return isOver ? [] : [{ ...incident, absentRounds }]
  })
  const held = current.map(incident => ({ ...incident, sinceUs: before.get(incident.key)?.sinceUs ?? nowUs }))
  return { atUs: nowUs, incidents: [...gone, ...held], told }
}

/**
 * What a receiver is still to hear: beginnings, then growths by `GROWTH`, then ends, each by age. Of more than `ALERTS_MAX`
 * the others wait for the next round, and an incident `backlog` says how many.
 */
export function pendingAlerts(state: AlertState, receiver: string): Alert[] {
  const told = state.told[receiver] ?? {}
  const triggers: Alert[] = []
  const updates: Alert[] = []
  const resolves: Alert[] = []
  for (const incident of [...state.incidents].sort((a, b) => a.sinceUs - b.sinceUs)) {
    const count = told[incident.key]
    if (incident.absentRounds >= ABSENT_ROUNDS_MAX) {
      if (count !== undefined) resolves.push({ event: 'resolve', incident })
    } else if (count === undefined) triggers.push({ event: 'trigger', incident })
    else if (incident.count >= count * GROWTH) updates.push({ event: 'update', incident })
  }
  const all = [...triggers, ...updates, ...resolves]
  const wasBacklog = told[BACKLOG] !== undefined
  const backlog = backlogOf(Math.max(0, all.length - ALERTS_MAX), state.atUs)
  if (backlog.count > 0 && !wasBacklog) return [...all.slice(0, ALERTS_MAX), { event: 'trigger', incident: backlog }]
  if (backlog.count === 0 && wasBacklog) return [...all, { event: 'resolve', incident: backlog }]
  return all.slice(0, ALERTS_MAX)
}

/** The state when a receiver has taken an alert. Rounds may have passed while it was on its way. */
export function markTold(state: AlertState, receiver: string, { event, incident }: Alert): AlertState {
  const { [incident.key]: _, ...others } = state.told[receiver] ?? {}
  const mine = event === 'resolve' ? others : { ...others, [incident.key]: incident.count }
  const isKnown = incident.key === BACKLOG || state.incidents.some(({ key }) => key === incident.key)
  // It ended unseen, before the receiver had heard of it: the end is to be told now.
  const ended = isKnown || event === 'resolve' ? [] : [{ ...incident, absentRounds: ABSENT_ROUNDS_MAX }]
  return { ...state, incidents: [...state.incidents, ...ended], told: { ...state.told, [receiver]: mine } }
}

/** A state as it was stored; empty where it is none: at worst everything is told once more. */
export function parseState(value: unknown): AlertState {
  const stored = asObject(value)
  const told = asObject(stored?.told)
  if (stored === undefined || told === undefined || !Array.isArray(stored.incidents)) return EMPTY_STATE
  const isWhole = isCount(stored.atUs) && stored.incidents.every(isIncident) && Object.values(told).every(areCounts)
  return isWhole ? (stored as unknown as AlertState) : EMPTY_STATE
}

/** A text of at most so many characters that still names one thing only: the end of a longer one is a hash of the whole. */
export function shortKey(text: string, charsMax: number): string {
  if (text.length <= charsMax) return text
  const hash = createHash('sha256').update(text).digest('hex').slice(0, HASH_CHARS)
  return `${text.slice(0, charsMax - HASH_CHARS - 1)}-${hash}`
}

/** The message of a finding without the instrument, which is named anyway. */
function withoutName({ name, message }: Finding): string {
  return name !== '' && message.startsWith(`${name}: `) ? message.slice(name.length + 2) : message
}

function incidentsOf(findings: readonly Finding[], nowUs: number, { incidents }: AlertState): Incident[] {
  const open = new Set(incidents.filter(each => each.absentRounds < ABSENT_ROUNDS_MAX).map(({ key }) => key))
  const byKey = new Map<string, Finding[]>()
  for (const finding of findings) {
    if (finding.severity !== 'error') continue
    // What an exchange had as a whole goes on until all of its instruments are well.
    const whole = [finding.rule, finding.exchange, '', ''].join(':')
    const key = open.has(whole) ? whole : [finding.rule, finding.exchange, finding.name, finding.feed].join(':')
    const same = byKey.get(key)
    if (same === undefined) byKey.set(key, [finding])
    else same.push(finding)
  }
  return [...byKey].map(([key, same]) => {
    const first = same[0]!
    const where = [first.exchange, first.name, first.feed].filter(Boolean).join(' ') || 'vault'
    const places = same.length > 1 ? ` (${same.length} places)` : ''
    return {
      key,
      rule: first.rule,
      summary: `${where}: ${cut(withoutName(first))}${places}`,
      count: same.length,
      files: [...new Set(same.map(({ file }) => file).filter(Boolean))].slice(0, DETAILS_MAX),
      findings: same.slice(0, DETAILS_MAX).map(finding => ({ ...finding, message: cut(finding.message) })),
      sinceUs: nowUs,
      absentRounds: 0
    }
  })
}

function failureOf(message: string, nowUs: number): Incident {
  return bare('check_failed', 'check_failed:::', `the check could not be made: ${cut(message)}`, 1, nowUs)
}

function backlogOf(count: number, nowUs: number): Incident {
  const summary = count === 0 ? 'everything has been told again' : `${count} more alerts follow`
  return bare('backlog', BACKLOG, summary, count, nowUs)
}

function bare(rule: AlertRule, key: string, summary: string, count: number, nowUs: number): Incident {
  return { key, rule, summary, count, files: [], findings: [], sinceUs: nowUs, absentRounds: 0 }
}

function cut(message: string): string {
  return message.length <= MESSAGE_CHARS_MAX ? message : `${message.slice(0, MESSAGE_CHARS_MAX - 1)}…`
}

function isIncident(value: unknown): boolean {
  const { key, rule, summary, count, files, findings, sinceUs, absentRounds } = asObject(value) ?? {}
  const areTexts = [key, rule, summary].every(isText) && Array.isArray(files) && files.every(isText)
  const isNumbered = isCount(count) && isCount(sinceUs) && isCount(absentRounds)
  return areTexts && isNumbered && Array.isArray(findings) && findings.every(isFinding)
}

function isFinding(value: unknown): boolean {
  const { rule, severity, exchange, name, feed, file, line, us, message } = asObject(value) ?? {}
  const areTexts = [rule, severity, exchange, name, feed, file, message].every(isText)
  return areTexts && (line === null || isCount(line)) && (us === null || isCount(us))
}

function isText(value: unknown): boolean {
  return typeof value === 'string'
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

function areCounts(value: unknown): boolean {
  const counts = asObject(value)
  return counts !== undefined && Object.values(counts).every(isCount)
}
