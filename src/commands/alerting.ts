/** The alerts of `check`: its options, one round or a round every so often, and who is told what of it. */
import { hostname } from 'node:os'
import { resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Command } from 'commander'
import { ALERT_VARIABLES, type AlertSettings, PAGERDUTY_URL } from '../config/alerts.ts'
import { messageOf } from '../core/errors.ts'
import { printable } from '../core/printable.ts'
import { isoMs } from '../core/time.ts'
import {
  type Alert,
  type AlertState,
  markTold,
  nextState,
  parseState,
  pendingAlerts,
  type Round,
  shortKey
} from '../quality/alerts.ts'
import type { Finding } from '../quality/finding.ts'
import { alertStatePath, readAlertState, storeAlertState } from '../vault/alert-state.ts'
import { beat, type Notice, Notifier, type NotifierLimits, pagerDuty, slack, webhook } from '../wire/notifier.ts'

/** What is checked, and how it is said. */
export interface AlertContext {
  readonly vault: string
  /**
   * What part of the vault is looked at, such as `live` or `live-okx`; empty for all of it. Each scope has a state and
   * incidents of its own.
   */
  readonly scope: string
  /** Lines of a watch as JSON, like those a webhook gets. */
  readonly json: boolean
  readonly limits?: Partial<NotifierLimits>
}

/** One check. Rejects when it could not be made. */
export type Check = () => Promise<readonly Finding[]>

/** PagerDuty takes keys of this length. */
const KEY_CHARS_MAX = 255
/** A disk that hangs must not keep a single check from ending. */
const STORE_MS_MAX = 5000
const TERMINAL = 'terminal'
const STOP_SIGNALS = ['SIGINT', 'SIGTERM'] as const
const WORDS = { trigger: 'NEW', update: 'MORE', resolve: 'OVER' } as const

/** Adds the options; `readAlertSettings` reads what commander makes of them. */
export function addAlertOptions(command: Command): Command {
  const variable = (name: keyof typeof ALERT_VARIABLES) => `(environment: ${ALERT_VARIABLES[name]})`
  return command
    .option('--slack-webhook <url>', `tell a Slack incoming webhook of errors ${variable('slackWebhook')}`)
    .option('--pagerduty-key <key>', `tell PagerDuty, by this integration key ${variable('pagerdutyKey')}`)
    .option('--pagerduty-url <url>', `where PagerDuty is ${variable('pagerdutyUrl')}; without it ${PAGERDUTY_URL}`)
    .option('--webhook <url>', `send the alerts as JSON to an address of yours ${variable('webhook')}`)
    .option('--heartbeat <url>', `call this address after each check that was made ${variable('heartbeat')}`)
    .option('--watch <duration>', 'stay, and check again so often, such as 1m')
    .option('--state <file>', 'where it is remembered who was told what; without it <vault>/meta/check/alerts*.json')
    .addHelpText(
      'after',
      '\nAddresses and keys are secrets, and options can be read by every user of the machine: better use the environment.'
    )
}

/** Whether anybody is to be told anything. */
export function hasAlerts(settings: AlertSettings): boolean {
  return receiversOf(settings, undefined).length > 0 || settings.heartbeatUrl !== null
}

/**
 * Makes one check and tells whoever is to be told; true when all of them took it (who did not is named on stderr, and told
 * with the next check). Rejects as the check did, after it was told that it could not be made.
 */
export async function alertOnce(check: Check, settings: AlertSettings, context: AlertContext): Promise<boolean> {
  const alarm = new Alarm(settings, context, [])
  const { signal } = new AbortController()
  const made = await settled(check)
  alarm.take(made.round)
  await Promise.all([alarm.tell(signal), 'error' in made ? undefined : alarm.beat(signal)])
  if ('error' in made) throw made.error
  return alarm.isDelivered
}

/**
 * Checks again and again until SIGINT or SIGTERM, which end it at once. Prints what is new, what has grown and what is over;
 * a check that could not be made is an alert like others. Nobody who is slow to take alerts holds up the next check.
 */
export async function watch(check: Check, settings: AlertSettings, context: AlertContext): Promise<void> {
  const stop = new AbortController()
  const { signal } = stop
  const end = () => stop.abort()
  const ended = new Promise<undefined>(done => signal.addEventListener('abort', () => done(undefined), { once: true }))
  for (const name of STOP_SIGNALS) process.once(name, end)
  try {
    const alarm = new Alarm(settings, context, [TERMINAL])
    while (!signal.aborted) {
      const beganMs = performance.now()
      const made = await Promise.race([settled(check), ended])
      if (made === undefined) return
      alarm.take(made.round)
      alarm.print()
      void alarm.tell(signal)
      if (!('error' in made)) void alarm.beat(signal)
      const restMs = Math.max(0, (settings.watchMs ?? 0) - (performance.now() - beganMs))
      await Promise.race([sleep(restMs, undefined, { signal }).catch(() => undefined), ended])
    }
  } finally {
    for (const name of STOP_SIGNALS) process.off(name, end)
    end()
  }
}

async function settled(check: Check): Promise<{ round: Round } | { round: Round; error: unknown }> {
  try {
    return { round: { findings: await check() } }
  } catch (error) {
    return { round: { failure: messageOf(error) }, error }
  }
}

/** The incidents there are, and everybody who is told. */
class Alarm {
  /** Whether everybody took everything so far. */
  isDelivered = true
  private state: AlertState
  private readonly notifiers: readonly Notifier[]
  private readonly names: readonly string[]
  private readonly settings: AlertSettings
  private readonly context: AlertContext
  private readonly statePath: string | null
  private storedText = ''
  private storing: Promise<void> | null = null
  private isStoreRefused = false
  private isBeating = false

  /** `others`: who is told besides the receivers of the settings. */
  constructor(settings: AlertSettings, context: AlertContext, others: readonly string[]) {
    this.settings = settings
    this.context = context
    this.notifiers = receiversOf(settings, context.limits)
    this.names = [...this.notifiers.map(({ receiver }) => receiver.name), ...others]
    const usual = this.notifiers.length > 0 ? alertStatePath(context.vault, context.scope) : null
    this.statePath = settings.statePath ?? usual
    this.state = parseState(this.statePath === null ? undefined : readAlertState(this.statePath))
  }

  /** Takes in a round. */
  take(round: Round): void {
    this.state = nextState(this.state, round, Date.now() * 1000, this.names)
  }

  /** Says on standard output what has changed since it was last called. */
  print(): void {
    for (const alert of pendingAlerts(this.state, TERMINAL)) {
      const notice = this.noticeOf(alert)
      const { at_utc, event, rule, summary } = notice
      const line = `${at_utc.slice(0, 19).replace('T', ' ')}Z ${WORDS[event].padEnd(4)} ${rule} ${summary}`
      process.stdout.write(this.context.json ? `${JSON.stringify(notice)}\n` : `${oneLine(line)}\n`)
      this.state = markTold(this.state, TERMINAL, alert)
    }
  }

  /** Tells every receiver that can be told now what it is still to hear, all at once. Resolves when that is done. */
  async tell(signal: AbortSignal): Promise<void> {
    const ready = this.notifiers.filter(({ isReady }) => isReady)
    // Before anybody is told: what is sent must not wait for a disk.
    void this.store()
    await Promise.all(ready.map(each => this.tellOne(each, signal)))
    await Promise.race([this.store(), sleep(STORE_MS_MAX, undefined, { ref: false })])
  }

  /** Calls the dead man's switch, unless the last call is still under way. */
  async beat(signal: AbortSignal): Promise<void> {
    const url = this.settings.heartbeatUrl
    if (url === null || this.isBeating) return
    this.isBeating = true
    const failure = await beat(url, signal, this.context.limits)
    this.isBeating = false
    if (failure !== null && !signal.aborted) complain(failure)
  }

  private async tellOne(notifier: Notifier, signal: AbortSignal): Promise<void> {
    const { name } = notifier.receiver
    const alerts = pendingAlerts(this.state, name)
    if (alerts.length === 0) return
    const notices = alerts.map(alert => this.noticeOf(alert))
    let taken = 0
    const failure = await notifier.send(notices, signal, at => {
      taken++
      this.state = markTold(this.state, name, alerts[at]!)
    })
    if (failure === null || signal.aborted) return
    this.isDelivered = false
    complain(`${failure}; ${alerts.length - taken} of ${alerts.length} alerts wait for the next check`)
  }

  /** Stores what has changed, one writing at a time. */
  private store(): Promise<void> {
    if (this.storing === null && this.statePath !== null && this.textToStore() !== this.storedText)
      this.storing = this.write(this.statePath)
    return this.storing ?? Promise.resolve()
  }

  private async write(path: string): Promise<void> {
    let error: unknown
    // What changes meanwhile is written too.
    for (let text = this.textToStore(); text !== this.storedText && error === undefined; text = this.textToStore()) {
      error = await storeAlertState(path, `{"atUs":${this.state.atUs},${text.slice(1)}\n`)
      if (error === undefined) this.storedText = text
    }
    if (error !== undefined && !this.isStoreRefused)
      complain(`what was told cannot be stored (${messageOf(error)}): after a new start it may be told again`)
    this.isStoreRefused = error !== undefined
    this.storing = null
  }

  private textToStore(): string {
    const { [TERMINAL]: _, ...told } = this.state.told
    return JSON.stringify({ incidents: this.state.incidents, told })
  }

  private noticeOf({ event, incident }: Alert): Notice {
    const { vault: given, scope } = this.context
    const vault = resolve(given)
    const host = hostname()
    const { key, rule, summary, sinceUs, count, files, findings } = incident
    return {
      event,
      key: shortKey([host, vault, ...(scope === '' ? [] : [scope]), key].join(':'), KEY_CHARS_MAX),
      rule,
      severity: 'error',
      summary,
      since_utc: isoMs(sinceUs),
      at_utc: isoMs(this.state.atUs),
      vault,
      host,
      exchange: findings[0]?.exchange ?? '',
      count,
      files,
      findings: findings.map(({ rule, file, line, us, message }) => ({
        rule,
        file,
        line,
        time_utc: us === null ? null : isoMs(us),
        message
      }))
    }
  }
}

function receiversOf(settings: AlertSettings, limits: Partial<NotifierLimits> | undefined): Notifier[] {
  const { slackUrl, pagerDuty: duty, webhookUrl } = settings
  const receivers = [
    ...(slackUrl === null ? [] : [slack(slackUrl)]),
    ...(duty === null ? [] : [pagerDuty(duty.key, duty.url)]),
    ...(webhookUrl === null ? [] : [webhook(webhookUrl)])
  ]
  return receivers.map(receiver => new Notifier(receiver, limits))
}

function complain(text: string): void {
  process.stderr.write(`l3cap: ${oneLine(text)}\n`)
}

/** A line cannot be made to look like two. */
function oneLine(text: string): string {
  return printable(text).replaceAll('\n', '?')
}
