/**
 * Tells people: Slack, PagerDuty, any webhook. An address may be a secret, and so may be what a failed request says: errors
 * name the receiver and the status, nothing else.
 *
 * Slack: an incoming webhook takes `text` (shown in notifications) and `blocks`, and answers 200; 429 with `Retry-After`
 * when it comes too often (docs.slack.dev, checked 2026-11). PagerDuty: Events API v2, `POST /v2/enqueue`, answers 202; 429
 * and 5xx are to be tried again, 400 is not (developer.pagerduty.com, checked 2026-11).
 */
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { setTimeout as sleep } from 'node:timers/promises'
import pRetry, { AbortError } from 'p-retry'
import { messageOf } from '../core/errors.ts'
import { backoffMs } from './pace.ts'
import { retryAfterMs } from './socket.ts'

/** One place that a notice is about. */
export interface NoticePlace {
  readonly rule: string
  /** Relative to the vault; empty where it is about no file. */
  readonly file: string
  readonly line: number | null
  /** The moment it is about; null where there is none. */
  readonly time_utc: string | null
  readonly message: string
}

/** What a webhook is sent, as it is; Slack and PagerDuty get the same in their own form. */
export interface Notice {
  readonly event: 'trigger' | 'update' | 'resolve'
  /** Names the incident everywhere and for ever: host, vault and cause. At most 255 characters. */
  readonly key: string
  readonly rule: string
  readonly severity: 'error'
  readonly summary: string
  readonly since_utc: string
  readonly at_utc: string
  readonly vault: string
  readonly host: string
  /** The exchange it is about; empty where it is about none. */
  readonly exchange: string
  /** How many places there are. */
  readonly count: number
  /** The first few of them. */
  readonly files: readonly string[]
  readonly findings: readonly NoticePlace[]
}

/** Who is told, where, and in which words. */
export interface Receiver {
  /** What errors and the stored state call it. */
  readonly name: string
  readonly url: string
  body(notice: Notice): object
}

/** How long it is tried, and how waiting is done. */
export interface NotifierLimits {
  /** One request. */
  readonly tryMs: number
  readonly tries: number
  /** The first wait between two tries; it doubles. */
  readonly backoffMs: number
  /** Everything that is sent at once. */
  readonly sendMs: number
  /** Waits for as long as a receiver asks. */
  wait(ms: number, signal: AbortSignal): Promise<unknown>
}

const LIMITS: NotifierLimits = {
  tryMs: 10_000,
  tries: 5,
  backoffMs: 500,
  sendMs: 45_000,
  wait: (ms, signal) => sleep(ms, undefined, { signal })
}
const PAGERDUTY_PATH = '/v2/enqueue'
const SUMMARY_CHARS_MAX = 1024
const SLACK_TEXT_CHARS_MAX = 3000
/** A receiver that asks to be left alone for longer than this is asked again nevertheless. */
const REST_MS_MAX = 3_600_000
const MARKS = { trigger: '🔴 NEW', update: '🟠 MORE', resolve: '🟢 OVER' } as const

/** A Slack incoming webhook. */
export function slack(url: string): Receiver {
  return { name: 'slack', url, body: slackBody }
}

/** A PagerDuty integration by its routing key; `base` is the address with or without `/v2/enqueue`. */
export function pagerDuty(key: string, base: string): Receiver {
  const bare = base.replace(/\/+$/, '').replace(PAGERDUTY_PATH, '')
  return { name: 'pagerduty', url: bare + PAGERDUTY_PATH, body: notice => pagerDutyBody(key, notice) }
}

/** Any address that takes the notices as JSON. */
export function webhook(url: string): Receiver {
  return { name: 'webhook', url, body: notice => notice }
}

/**
 * Tells one receiver, in order, trying again where that can help. One that fails is left alone for a growing time, or for
 * as long as it asks.
 */
export class Notifier {
  readonly receiver: Receiver
  private readonly limits: NotifierLimits
  private failures = 0
  private restUntilMs = 0
  private isBusy = false

  constructor(receiver: Receiver, limits: Partial<NotifierLimits> = {}) {
    this.receiver = receiver
    this.limits = { ...LIMITS, ...limits }
  }

  /** Whether something can be sent now: nothing else is under way, and it is not left alone. */
  get isReady(): boolean {
    return !this.isBusy && performance.now() >= this.restUntilMs
  }

  /**
   * Sends notices one after the other; `onTaken` with the place of each that was taken. One that is refused is left out; when
   * the receiver cannot be reached the rest is left out too. Resolves to why not everything was taken, in words without
   * secrets, or to null. Never rejects; the signal cuts it short.
   */
  async send(notices: readonly Notice[], signal: AbortSignal, onTaken: (at: number) => void): Promise<string | null> {
    this.isBusy = true
    const { name, url, body } = this.receiver
    let failure: string | null = null
    let restMs = 0
    try {
      const deadline = AbortSignal.any([signal, AbortSignal.timeout(this.limits.sendMs)])
      for (const [at, notice] of notices.entries()) {
        const result = await attempt(url, JSON.stringify(body(notice)), this.limits, deadline)
        if (result.trouble === null) onTaken(at)
        else {
          failure = `${name}: ${result.trouble}`
          restMs = Math.max(restMs, result.restMs)
          if (!result.isFinal) break
        }
      }
    } finally {
      this.isBusy = false
    }
    this.failures = failure === null ? 0 : this.failures + 1
    if (failure !== null) this.restUntilMs = performance.now() + Math.max(restMs, backoffMs(this.failures))
    return failure
  }
}

/** Tells a dead man's switch that a check was made. Resolves to what went wrong, null when nothing did. */
export async function beat(
  url: string,
  signal: AbortSignal,
  limits: Partial<NotifierLimits> = {}
): Promise<string | null> {
  const all = { ...LIMITS, tries: 3, ...limits }
  const deadline = AbortSignal.any([signal, AbortSignal.timeout(all.sendMs)])
  const { trouble } = await attempt(url, null, all, deadline)
  return trouble === null ? null : `heartbeat: ${trouble}`
}

/** What came of one message. `isFinal`: it was refused, and would be again. `restMs`: how long to leave the receiver alone. */
interface Result {
  readonly trouble: string | null
  readonly isFinal: boolean
  readonly restMs: number
}

/** A request that was not answered as it should; the message holds no secrets. */
class Failed extends Error {
  readonly isFinal: boolean
  readonly restMs: number

  constructor(message: string, isFinal: boolean, restMs: number) {
    super(message)
    this.isFinal = isFinal
    this.restMs = restMs
  }
}

async function attempt(url: string, body: string | null, limits: NotifierLimits, signal: AbortSignal): Promise<Result> {
  const endMs = performance.now() + limits.sendMs
  let last = new Failed('not sent in time', false, 0)
  const once = async () => {
    try {
      await ask(url, body, limits.tryMs, signal)
    } catch (error) {
      last = error instanceof Failed ? error : last
      const isLate = performance.now() + last.restMs > endMs
      throw last.isFinal || isLate ? new AbortError(last) : last
    }
  }
  try {
    await pRetry(once, {
      retries: limits.tries - 1,
      minTimeout: limits.backoffMs,
      maxTimeout: 8 * limits.backoffMs,
      randomize: true,
      signal,
      // On top of the growing wait, so that not everybody comes again at the very moment that was told to all.
      onFailedAttempt: async ({ retriesLeft }) => {
        if (retriesLeft > 0 && last.restMs > 0) await limits.wait(last.restMs, signal)
      }
    })
    return { trouble: null, isFinal: false, restMs: 0 }
  } catch {
    // Whatever was thrown, the last answer is what there is to tell.
    return { trouble: last.message, isFinal: last.isFinal, restMs: last.restMs }
  }
}

/** One request. Rejects with `Failed` unless it is answered with 2xx; what the answer says is not read. */
function ask(url: string, body: string | null, tryMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => request.destroy(new Failed(`no answer within ${tryMs / 1000} s`, false, 0)), tryMs)
    const options = {
      method: body === null ? 'GET' : 'POST',
      headers: {
        'user-agent': 'l3cap',
        ...(body === null ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) })
      },
      // An idle socket is often closed just when the next message comes; one a minute can afford its own.
      agent: false as const,
      // Said, so that no variable of the environment can switch it off.
      rejectUnauthorized: true,
      signal
    }
    const receive = (response: IncomingMessage) => {
      clearTimeout(timer)
      const status = response.statusCode ?? 0
      const restMs = Math.min(REST_MS_MAX, retryAfterMs(response.headers['retry-after'], Date.now()))
      response.destroy()
      if (status >= 200 && status < 300) resolve()
      else reject(new Failed(`status ${status}`, status < 500 && status !== 429 && status !== 408, restMs))
    }
    const request = (url.startsWith('https:') ? httpsRequest : httpRequest)(url, options, receive)
    request.on('error', error => {
      clearTimeout(timer)
      const reason = signal.aborted ? 'not sent in time' : codeOf(error)
      reject(error instanceof Failed ? error : new Failed(reason, false, 0))
    })
    request.end(body ?? undefined)
  })
}

/** What went wrong with a connection, without its address: `ECONNREFUSED`. */
function codeOf(error: Error): string {
  const code = messageOf((error as NodeJS.ErrnoException).code ?? '')
  return /^[A-Z][A-Z0-9_]+$/.test(code) ? code : 'no connection'
}

/** Plain text throughout: nothing that a file says can mention people or be a link. Only `text` has markup, so it is escaped. */
function slackBody(notice: Notice): object {
  const { event, summary, findings, count, host, vault, rule, since_utc, at_utc } = notice
  const title = `${MARKS[event]} ${summary}`
  const places = findings.map(({ file, line, message }) => {
    const place = file === '' ? '' : `${file}${line === null ? '' : `:${line}`}: `
    return `${place}${message}`
  })
  if (count > places.length && places.length > 0) places.push(`and ${count - places.length} more`)
  const details = event === 'resolve' ? [] : places
  const ended = event === 'resolve' ? `, over at ${at_utc}` : ''
  const footer = `${rule} since ${since_utc}${ended}; ${host}:${vault}`
  return {
    text: cut(title, SLACK_TEXT_CHARS_MAX).replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;'),
    blocks: [
      { type: 'section', text: plain(title) },
      ...(details.length === 0 ? [] : [{ type: 'section', text: plain(details.join('\n')) }]),
      { type: 'context', elements: [plain(footer)] }
    ]
  }
}

function plain(text: string): object {
  return { type: 'plain_text', text: cut(text, SLACK_TEXT_CHARS_MAX), emoji: false }
}

function pagerDutyBody(routingKey: string, notice: Notice): object {
  const { event, key, rule, severity, summary, since_utc, at_utc, vault, host, exchange, count, files, findings } =
    notice
  const head = { routing_key: routingKey, event_action: event === 'resolve' ? 'resolve' : 'trigger', dedup_key: key }
  if (event === 'resolve') return head
  return {
    ...head,
    client: 'l3cap',
    payload: {
      summary: cut(summary, SUMMARY_CHARS_MAX),
      source: host,
      severity,
      timestamp: at_utc,
      component: exchange || 'vault',
      group: vault,
      class: rule,
      custom_details: { since_utc, vault, count, files, findings }
    }
  }
}

function cut(text: string, charsMax: number): string {
  return text.length <= charsMax ? text : `${text.slice(0, charsMax - 1)}…`
}
