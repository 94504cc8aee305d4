import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command } from 'commander'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import {
  type AlertContext,
  addAlertOptions,
  alertOnce,
  type Check,
  hasAlerts,
  watch
} from '../../src/commands/alerting.ts'
import { type AlertSettings, readAlertSettings } from '../../src/config/alerts.ts'
import type { Finding } from '../../src/quality/finding.ts'
import { Listener } from '../helpers/listener.ts'

const WAIT = { timeout: 15_000, interval: 5 }
const TOKEN = 'verySecretToken'
const ROUTING_KEY = '0123456789abcdef0123456789ABCDEF'
const SLACK = `/services/${TOKEN}`
const PAGERDUTY = '/v2/enqueue'
const WEBHOOK = `/hook?token=${TOKEN}`
const HEARTBEAT = `/ping/${TOKEN}`

let listener: Listener
let vault: string
let statePath: string
let out: string
let err: string

beforeEach(async () => {
  listener = await Listener.start()
  vault = mkdtempSync(join(tmpdir(), 'l3cap-alerting-'))
  mkdirSync(join(vault, 'meta'))
  statePath = join(vault, 'meta', 'check', 'alerts.json')
  out = ''
  err = ''
  vi.spyOn(process.stdout, 'write').mockImplementation(text => {
    out += String(text)
    return true
  })
  vi.spyOn(process.stderr, 'write').mockImplementation(text => {
    err += String(text)
    return true
  })
})
afterEach(async () => {
  vi.restoreAllMocks()
  await listener.stop()
  rmSync(vault, { recursive: true, force: true })
})

function settings(changes: Partial<AlertSettings> = {}): AlertSettings {
  return {
    slackUrl: listener.url + SLACK,
    pagerDuty: { key: ROUTING_KEY, url: listener.url },
    webhookUrl: listener.url + WEBHOOK,
    heartbeatUrl: listener.url + HEARTBEAT,
    watchMs: null,
    statePath: null,
    ...changes
  }
}

const context = (changes: Partial<AlertContext> = {}): AlertContext => ({
  vault,
  scope: '',
  json: false,
  limits: { backoffMs: 1, tryMs: 2000, tries: 2 },
  ...changes
})

const FINDING: Finding = {
  rule: 'torn_line',
  severity: 'error',
  exchange: 'okx',
  name: 'BTC-USDT',
  feed: 'trades',
  file: 'raw/okx/trades/BTC-USDT/2026-11-20/23.jsonl',
  line: 7,
  us: 1_795_215_925_754_455,
  message: 'the line is cut off \u001b[2J'
}
const found: Check = async () => [FINDING]
const clean: Check = async () => []
const failing: Check = async () => {
  throw new Error('there is no vault')
}

/** The events that came at each of the three receivers. */
function events(): { slack: string[]; pagerDuty: unknown[]; webhook: unknown[] } {
  return {
    slack: listener.at(SLACK).map(body => String(body?.text).split(' ')[1] ?? ''),
    pagerDuty: listener.at(PAGERDUTY).map(body => body?.event_action),
    webhook: listener.at(WEBHOOK).map(body => body?.event)
  }
}

describe('readAlertSettings', () => {
  const ENV = {
    L3CAP_SLACK_WEBHOOK: 'https://hooks.slack.com/services/env',
    L3CAP_PAGERDUTY_KEY: ROUTING_KEY,
    L3CAP_PAGERDUTY_URL: 'https://events.eu.pagerduty.com',
    L3CAP_WEBHOOK: 'http://localhost:1/env',
    L3CAP_HEARTBEAT: 'https://hc-ping.com/env'
  }
  const empty = () => {
    for (const name of Object.keys(ENV)) vi.stubEnv(name, '')
  }
  afterEach(() => vi.unstubAllEnvs())

  it('asks for nothing by itself', () => {
    empty()
    const { settings: read, mistakes } = readAlertSettings({})
    expect(mistakes).toEqual([])
    expect(Object.values(read)).toEqual([null, null, null, null, null, null])
    expect(hasAlerts(read)).toBe(false)
  })

  it('takes the environment, and options before it', () => {
    for (const [name, value] of Object.entries(ENV)) vi.stubEnv(name, value)
    expect(readAlertSettings({ slackWebhook: 'https://x/flag', watch: '90s', state: 'file' })).toEqual({
      mistakes: [],
      settings: {
        slackUrl: 'https://x/flag',
        pagerDuty: { key: ROUTING_KEY, url: 'https://events.eu.pagerduty.com' },
        webhookUrl: ENV.L3CAP_WEBHOOK,
        heartbeatUrl: ENV.L3CAP_HEARTBEAT,
        watchMs: 90_000,
        statePath: 'file'
      }
    })
    expect(hasAlerts({ ...readAlertSettings({}).settings, slackUrl: null, pagerDuty: null, webhookUrl: null })).toBe(
      true
    )
  })

  it('lists every mistake at once, and repeats no secret', () => {
    empty()
    vi.stubEnv('L3CAP_HEARTBEAT', `ftp://x/${TOKEN}`)
    const { mistakes } = readAlertSettings({
      slackWebhook: TOKEN,
      pagerdutyKey: TOKEN,
      pagerdutyUrl: `javascript:${TOKEN}`,
      webhook: '',
      watch: '10ms',
      state: ''
    })
    expect(mistakes.join('\n')).not.toContain(TOKEN)
    expect(mistakes.map(each => each.split(':')[0]).sort()).toEqual([
      '--pagerduty-key',
      '--pagerduty-url',
      '--slack-webhook',
      '--state',
      '--watch',
      '--webhook',
      'L3CAP_HEARTBEAT'
    ])
  })

  it.each(['0s', '2d', 'often'])('--watch %s is none', text => {
    expect(readAlertSettings({ watch: text }).mistakes).toEqual([expect.stringContaining(JSON.stringify(text))])
  })

  it('reads what the options of the command give', async () => {
    empty()
    const command = addAlertOptions(new Command('check')).exitOverride()
    const words = { 'slack-webhook': 'https://a/', 'pagerduty-key': ROUTING_KEY, 'pagerduty-url': 'https://b/' }
    const more = { webhook: 'https://c/', heartbeat: 'https://d/', watch: '1m', state: 'f' }
    const argv = Object.entries({ ...words, ...more }).flatMap(([name, value]) => [`--${name}`, value])
    await command.action(() => undefined).parseAsync(argv, { from: 'user' })
    expect(readAlertSettings(command.opts())).toEqual({
      mistakes: [],
      settings: {
        slackUrl: 'https://a/',
        pagerDuty: { key: ROUTING_KEY, url: 'https://b/' },
        webhookUrl: 'https://c/',
        heartbeatUrl: 'https://d/',
        watchMs: 60_000,
        statePath: 'f'
      }
    })
  })
})

describe('alertOnce', () => {
  it('tells everybody one cause once in ten runs, and its end once', async () => {
    for (let run = 0; run < 10; run++) expect(await alertOnce(found, settings(), context())).toBe(true)
    for (let run = 0; run < 4; run++) expect(await alertOnce(clean, settings(), context())).toBe(true)
    expect(events()).toEqual({
      slack: ['NEW', 'OVER'],
      pagerDuty: ['trigger', 'resolve'],
      webhook: ['trigger', 'resolve']
    })
    expect(listener.at(HEARTBEAT)).toHaveLength(14)
    const keys = [
      ...listener.at(PAGERDUTY).map(body => body?.dedup_key),
      ...listener.at(WEBHOOK).map(body => body?.key)
    ]
    expect(new Set(keys)).toEqual(new Set([`${hostname()}:${vault}:torn_line:okx:BTC-USDT:trades`]))
    expect([out, err]).toEqual(['', ''])
  })

  it('tells what, where and since when', async () => {
    await alertOnce(found, settings(), context())
    expect(listener.at(WEBHOOK)).toEqual([
      {
        event: 'trigger',
        key: `${hostname()}:${vault}:torn_line:okx:BTC-USDT:trades`,
        rule: 'torn_line',
        severity: 'error',
        summary: `okx BTC-USDT trades: ${FINDING.message}`,
        since_utc: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
        at_utc: expect.stringMatching(/Z$/),
        vault,
        host: hostname(),
        exchange: 'okx',
        count: 1,
        files: [FINDING.file],
        findings: [
          {
            rule: 'torn_line',
            file: FINDING.file,
            line: 7,
            time_utc: '2026-11-20T23:05:25.754Z',
            message: FINDING.message
          }
        ]
      }
    ])
  })

  it.each(['lost', 'damaged'])('a state that is %s does no harm', async how => {
    await alertOnce(found, settings(), context())
    if (how === 'lost') rmSync(statePath)
    else writeFileSync(statePath, '{"incidents":[{"key":')
    await alertOnce(found, settings(), context())
    await alertOnce(found, settings(), context())
    expect(events().webhook).toEqual(['trigger', 'trigger'])
    expect(new Set(listener.at(PAGERDUTY).map(body => body?.dedup_key)).size).toBe(1)
  })

  it('a vault that takes no file is told of nevertheless, and nothing grows where no vault is', async () => {
    rmSync(join(vault, 'meta'), { recursive: true })
    expect(await alertOnce(found, settings(), context())).toBe(true)
    expect([events().webhook, readdirSync(vault)]).toEqual([['trigger'], []])
    expect(err).toMatch(/^l3cap: what was told cannot be stored \(ENOENT.*\n$/)
  })

  it('keeps the state where it is told to, and by what is looked at', async () => {
    const elsewhere = join(vault, 'state.json')
    await alertOnce(found, settings({ statePath: elsewhere }), context())
    expect([existsSync(elsewhere), existsSync(statePath)]).toEqual([true, false])
    await alertOnce(found, settings(), context({ scope: 'live' }))
    await alertOnce(clean, settings(), context())
    await alertOnce(clean, settings(), context())
    expect(events().webhook).toEqual(['trigger', 'trigger'])
    expect(readdirSync(join(vault, 'meta', 'check')).sort()).toEqual(['alerts-live.json', 'alerts.json'])
    expect(listener.at(WEBHOOK)[1]!.key).toBe(`${hostname()}:${vault}:live:torn_line:okx:BTC-USDT:trades`)
  })

  it('one dead receiver holds up no other, and hears it later', async () => {
    listener.answers.set(SLACK, () => undefined)
    const limits = { backoffMs: 1, tryMs: 100, tries: 2 }
    expect(await alertOnce(found, settings(), context({ limits }))).toBe(false)
    expect(err).toBe('l3cap: slack: no answer within 0.1 s; 1 of 1 alerts wait for the next check\n')
    expect(listener.heard.findIndex(each => each.path === PAGERDUTY)).toBeLessThan(
      listener.heard.findLastIndex(each => each.path === SLACK)
    )
    listener.answers.delete(SLACK)
    expect(await alertOnce(found, settings(), context())).toBe(true)
    expect(events()).toEqual({ slack: ['NEW', 'NEW', 'NEW'], pagerDuty: ['trigger'], webhook: ['trigger'] })
  })

  it('a check that cannot be made is told, and sends no heartbeat', async () => {
    await expect(alertOnce(failing, settings(), context())).rejects.toThrow('there is no vault')
    expect(listener.at(WEBHOOK)).toMatchObject([
      { rule: 'check_failed', summary: expect.stringContaining('there is no vault') }
    ])
    expect(listener.at(HEARTBEAT)).toEqual([])
  })

  it('writes no secret anywhere', async () => {
    for (const path of [SLACK, WEBHOOK, HEARTBEAT, PAGERDUTY])
      listener.answers.set(path, response => void response.writeHead(404).end(`${TOKEN} ${ROUTING_KEY}`))
    await alertOnce(found, settings(), context())
    for (const path of [SLACK, WEBHOOK, HEARTBEAT, PAGERDUTY])
      listener.answers.set(path, response => void response.destroy())
    await alertOnce(found, settings(), context())
    const gone = settings()
    await listener.stop()
    await alertOnce(found, gone, context())
    listener = await Listener.start()
    const written = readdirSync(vault, { recursive: true, withFileTypes: true })
      .filter(entry => entry.isFile())
      .map(entry => readFileSync(join(entry.parentPath, entry.name), 'utf8'))
    expect(written.join('')).toContain('torn_line')
    expect(err.split('\n').filter(line => /status 404|ECONNRESET|ECONNREFUSED/.test(line))).toHaveLength(12)
    for (const secret of [TOKEN, ROUTING_KEY, '127.0.0.1'])
      expect([out, err, ...written].join('\n')).not.toContain(secret)
  })
})

describe('watch', () => {
  /** Watches with a check that is `rounds[n]` in round n and the last one from then on; `stop` ends it as a signal does. */
  function watching(rounds: readonly Check[], given = settings({ watchMs: 10 }), where = context()) {
    let made = 0
    const ended = watch(() => rounds[Math.min(made++, rounds.length - 1)]!(), given, where)
    const stop = async () => {
      process.emit('SIGTERM')
      await ended
    }
    return { rounds: () => made, stop }
  }
  const none = { slackUrl: null, pagerDuty: null, webhookUrl: null, heartbeatUrl: null }
  const lines = () => out.split('\n').filter(Boolean)

  it('prints what is new, what has grown and what is over, and keeps no state for itself', async () => {
    const grown = async () => Array.from({ length: 10 }, () => FINDING)
    const { rounds, stop } = watching([found, found, grown, grown, clean], settings({ ...none, watchMs: 1 }))
    await vi.waitFor(() => expect(rounds()).toBeGreaterThan(10), WAIT)
    await stop()
    const time = String.raw`\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ`
    expect(lines()).toEqual(
      ['NEW ', 'MORE', 'OVER'].map(word =>
        expect.stringMatching(new RegExp(`^${time} ${word} torn_line okx BTC-USDT trades: the line is cut off .u001b`))
      )
    )
    expect([err, readdirSync(join(vault, 'meta'))]).toEqual(['', []])
  })

  it('prints JSON lines where that is asked for', async () => {
    const { rounds, stop } = watching([found], settings({ ...none, watchMs: 1 }), context({ json: true }))
    await vi.waitFor(() => expect(rounds()).toBeGreaterThan(2), WAIT)
    await stop()
    expect(lines().map(line => JSON.parse(line))).toMatchObject([{ event: 'trigger', rule: 'torn_line', count: 1 }])
  })

  it('survives checks that fail, and tells of them', async () => {
    const { stop } = watching([clean, failing, failing, clean])
    await vi.waitFor(() => expect(events().webhook).toEqual(['trigger', 'resolve']), WAIT)
    await stop()
    expect(listener.at(WEBHOOK)).toMatchObject([{ rule: 'check_failed' }, { rule: 'check_failed' }])
    expect(lines().map(line => line.slice(21, 38))).toEqual(['NEW  check_failed', 'OVER check_failed'])
  })

  it('sends a heartbeat after each check that was made, and no other', async () => {
    const { rounds, stop } = watching([clean, failing])
    await vi.waitFor(() => expect(rounds()).toBeGreaterThan(10), WAIT)
    await stop()
    expect(listener.at(HEARTBEAT)).toHaveLength(1)
  })

  it('is not held up by a receiver that hangs, and does not hammer it', async () => {
    listener.answers.set(SLACK, () => undefined)
    const { rounds, stop } = watching([found, found, clean])
    await vi.waitFor(() => expect(events().webhook).toEqual(['trigger', 'resolve']), WAIT)
    await vi.waitFor(() => expect(rounds()).toBeGreaterThan(10), WAIT)
    await stop()
    expect(listener.at(SLACK)).toHaveLength(1)
  })

  it('leaves a receiver alone that has failed, for a while', async () => {
    listener.answers.set(SLACK, response => void response.writeHead(404).end())
    const { rounds, stop } = watching([found], settings({ watchMs: 1 }))
    await vi.waitFor(() => expect(rounds()).toBeGreaterThan(50), WAIT)
    const tries = listener.at(SLACK).length
    await stop()
    expect(tries).toBeGreaterThan(0)
    expect(tries).toBeLessThan(rounds() / 10)
  })

  it('goes on where it was stopped', async () => {
    const first = watching([found])
    await vi.waitFor(() => expect(readFileSync(statePath, 'utf8')).toContain('"webhook":{"torn'), WAIT)
    await first.stop()
    const second = watching([found])
    await vi.waitFor(() => expect(second.rounds()).toBeGreaterThan(3), WAIT)
    await second.stop()
    expect(events().webhook).toEqual(['trigger'])
    // Whoever looks at the terminal has not seen the first run.
    expect(lines()).toHaveLength(2)
  })

  it('ends at once, in the middle of a check', async () => {
    const { rounds, stop } = watching([clean, () => new Promise(() => undefined)])
    await vi.waitFor(() => expect(rounds()).toBe(2), WAIT)
    await stop()
    expect(process.listenerCount('SIGINT') + process.listenerCount('SIGTERM')).toBe(0)
  })
})
