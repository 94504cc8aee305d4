/** Who a check tells, from its options and the environment. Addresses and keys are secrets: no message repeats one. */
import { parseDuration } from '../core/time.ts'
import { variables } from './env.ts'

/** The alert options of `check`, as commander gives them. */
export interface AlertFlags {
  readonly slackWebhook?: string
  readonly pagerdutyKey?: string
  readonly pagerdutyUrl?: string
  readonly webhook?: string
  readonly heartbeat?: string
  readonly watch?: string
  readonly state?: string
}

/** Who is told, and how often it is looked; null where it was not asked for. */
export interface AlertSettings {
  readonly slackUrl: string | null
  readonly pagerDuty: { readonly key: string; readonly url: string } | null
  readonly webhookUrl: string | null
  readonly heartbeatUrl: string | null
  /** How long from one check to the next. */
  readonly watchMs: number | null
  readonly statePath: string | null
}

/** Each option that may come from the environment, and the variable. */
export const ALERT_VARIABLES = {
  slackWebhook: 'L3CAP_SLACK_WEBHOOK',
  pagerdutyKey: 'L3CAP_PAGERDUTY_KEY',
  pagerdutyUrl: 'L3CAP_PAGERDUTY_URL',
  webhook: 'L3CAP_WEBHOOK',
  heartbeat: 'L3CAP_HEARTBEAT'
} as const

/** Where PagerDuty takes events. */
export const PAGERDUTY_URL = 'https://events.pagerduty.com'

const WATCH_MS_MIN = 1000
const WATCH_MS_MAX = 86_400_000

type Secret = keyof typeof ALERT_VARIABLES

/** Reads the options, then the environment. `mistakes` lists everything that is wrong; the settings count only without any. */
export function readAlertSettings(flags: AlertFlags): { settings: AlertSettings; mistakes: string[] } {
  const mistakes: string[] = []
  const given = (name: Secret) => {
    const fromFlag = flags[name]
    if (fromFlag !== undefined)
      return { text: fromFlag, source: `--${name.replace(/[A-Z]/g, c => `-${c.toLowerCase()}`)}` }
    const stored = variables([ALERT_VARIABLES[name]])
    return stored === null ? undefined : { text: stored[0]!, source: ALERT_VARIABLES[name] }
  }
  const address = (name: Secret): string | null => {
    const found = given(name)
    if (found === undefined) return null
    if (!isWeb(found.text)) mistakes.push(`${found.source}: an http or https address is expected`)
    return found.text
  }
  const key = given('pagerdutyKey')
  if (key !== undefined && !/^[A-Za-z0-9]{32}$/.test(key.text))
    mistakes.push(`${key.source}: an integration key of 32 letters and digits is expected`)
  const url = address('pagerdutyUrl') ?? PAGERDUTY_URL
  const watchMs = flags.watch === undefined ? null : (parseDuration(flags.watch) ?? Number.NaN)
  if (watchMs !== null && !(watchMs >= WATCH_MS_MIN && watchMs <= WATCH_MS_MAX))
    mistakes.push(`--watch: ${JSON.stringify(flags.watch)} is no duration from 1s to 1d, such as 1m`)
  if (flags.state === '') mistakes.push('--state: empty')
  const settings = {
    slackUrl: address('slackWebhook'),
    pagerDuty: key === undefined ? null : { key: key.text, url },
    webhookUrl: address('webhook'),
    heartbeatUrl: address('heartbeat'),
    watchMs,
    statePath: flags.state ?? null
  }
  return { settings, mistakes }
}

function isWeb(text: string): boolean {
  return URL.canParse(text) && /^https?:$/.test(new URL(text).protocol)
}
