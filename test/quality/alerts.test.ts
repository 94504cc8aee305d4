import { describe, expect, it } from 'vitest'
import {
  type Alert,
  type AlertState,
  EMPTY_STATE,
  markTold,
  nextState,
  parseState,
  pendingAlerts,
  type Round,
  shortKey
} from '../../src/quality/alerts.ts'
import type { Finding } from '../../src/quality/finding.ts'

const RECEIVERS = ['slack', 'pagerduty']

function finding(changes: Partial<Finding> = {}): Finding {
  return {
    rule: 'torn_line',
    severity: 'error',
    exchange: 'okx',
    name: 'BTC-USDT',
    feed: 'trades',
    file: 'raw/okx/trades/BTC-USDT/2026-11-20/23.jsonl',
    line: 7,
    us: 1_795_215_925_754_455,
    message: 'the line is cut off',
    ...changes
  }
}

/** As many findings of one cause, each in a line of its own. */
function findings(count: number, changes: Partial<Finding> = {}): Finding[] {
  return Array.from({ length: count }, (_, at) => finding({ line: at + 1, ...changes }))
}

/** Rounds one second apart; everybody in `takers` takes everything. Gives what slack was sent, round by round. */
class Story {
  state: AlertState = EMPTY_STATE
  private us = 1_795_000_000_000_000

  round(round: readonly Finding[] | string, takers: readonly string[] = RECEIVERS): string[] {
    this.us += 1_000_000
    const made: Round = typeof round === 'string' ? { failure: round } : { findings: round }
    this.state = nextState(this.state, made, this.us, RECEIVERS)
    const sent = pendingAlerts(this.state, 'slack')
    for (const taker of takers)
      for (const alert of pendingAlerts(this.state, taker)) this.state = markTold(this.state, taker, alert)
    return sent.map(told)
  }
}

function told({ event, incident }: Alert): string {
  return `${event} ${incident.key} ${incident.count}`
}

const KEY = 'torn_line:okx:BTC-USDT:trades'

function mute(name: string): Finding {
  return finding({
    rule: 'mute_instrument',
    name,
    feed: '',
    message: name === '' ? 'none is live' : `${name}: has no book`
  })
}

describe('an exchange of which all is mute', () => {
  it('stays one incident until the last instrument is well', () => {
    const story = new Story()
    expect(story.round([mute('')])).toEqual(['trigger mute_instrument:okx:: 1'])
    expect(story.round([mute('A'), mute('B')])).toEqual([])
    expect(story.round([mute('B')])).toEqual([])
    expect(story.round([])).toEqual([])
    expect(story.round([])).toEqual(['resolve mute_instrument:okx:: 1'])
    expect(story.round([mute('B')])).toEqual(['trigger mute_instrument:okx:B: 1'])
  })

  it('names an instrument once', () => {
    const { incidents } = nextState(EMPTY_STATE, { findings: [mute('A')] }, 1, RECEIVERS)
    expect(incidents[0]?.summary).toBe('okx A: has no book')
  })
})

describe('incidents', () => {
  it('tells one cause once in ten rounds, and its end once', () => {
    const story = new Story()
    const rounds = Array.from({ length: 10 }, (_, at) => story.round([finding({ line: at, message: `figure ${at}` })]))
    expect(rounds).toEqual([[`trigger ${KEY} 1`], ...Array(9).fill([])])
    expect([story.round([]), story.round([]), story.round([]), story.round([])]).toEqual([
      [],
      [`resolve ${KEY} 1`],
      [],
      []
    ])
    expect(story.state).toMatchObject({ incidents: [], told: { slack: {}, pagerduty: {} } })
  })

  it('holds what comes and goes for one incident, from its beginning on', () => {
    const story = new Story()
    const rounds = [[finding()], [], [finding()], [], [finding()]].map(round => story.round(round))
    expect(rounds).toEqual([[`trigger ${KEY} 1`], [], [], [], []])
    expect(story.state.incidents).toMatchObject([{ sinceUs: 1_795_000_001_000_000, absentRounds: 0 }])
  })

  it('begins anew what comes after its end', () => {
    const story = new Story()
    const rounds = [[finding()], [], [], [finding()]].map(round => story.round(round))
    expect(rounds).toEqual([[`trigger ${KEY} 1`], [], [`resolve ${KEY} 1`], [`trigger ${KEY} 1`]])
  })

  it('tells of errors only', () => {
    const story = new Story()
    expect(story.round([finding({ severity: 'warning' }), finding({ severity: 'info' })])).toEqual([])
  })

  it('tells each cause by itself: rule, exchange, name or feed', () => {
    const story = new Story()
    const others = [{ rule: 'bad_json' }, { exchange: 'kraken' }, { name: 'ETH-USDT' }, { feed: 'status' }] as const
    const sent = story.round([finding(), ...others.map(change => finding(change)), finding({ line: 9, file: 'b' })])
    expect(sent.sort()).toEqual([
      'trigger bad_json:okx:BTC-USDT:trades 1',
      'trigger torn_line:kraken:BTC-USDT:trades 1',
      'trigger torn_line:okx:BTC-USDT:status 1',
      `trigger ${KEY} 2`,
      'trigger torn_line:okx:ETH-USDT:trades 1'
    ])
  })

  it('tells again when it is in ten times as many places, and never when it shrinks', () => {
    const story = new Story()
    const sent = [3, 29, 30, 31, 2, 299, 300, 40, 300].map(count => story.round(findings(count)))
    expect(sent).toEqual([[`trigger ${KEY} 3`], [], [`update ${KEY} 30`], [], [], [], [`update ${KEY} 300`], [], []])
  })

  it('says what, where, how often and since when, and no more than can be read', () => {
    const story = new Story()
    const many = findings(40).map((each, at) => ({ ...each, file: `file-${at}`, message: 'x'.repeat(1000) }))
    story.round(many)
    const [incident] = story.state.incidents
    expect(incident).toMatchObject({ rule: 'torn_line', count: 40, sinceUs: 1_795_000_001_000_000 })
    expect(incident!.summary).toMatch(/^okx BTC-USDT trades: x{299}… \(40 places\)$/)
    expect(incident!.files).toEqual(['file-0', 'file-1', 'file-2', 'file-3', 'file-4'])
    expect(incident!.findings.map(({ line, message }) => [line, message.length])).toEqual(
      [1, 2, 3, 4, 5].map(l => [l, 300])
    )
  })

  it('names the vault where it is about nothing smaller', () => {
    const story = new Story()
    story.round([finding({ exchange: '', name: '', feed: '', file: '' })])
    expect(story.state.incidents).toMatchObject([{ summary: 'vault: the line is cut off', files: [] }])
  })
})

describe('a check that could not be made', () => {
  it('is an incident, and ends none', () => {
    const story = new Story()
    expect(story.round([finding()])).toEqual([`trigger ${KEY} 1`])
    expect(story.round('no vault')).toEqual(['trigger check_failed::: 1'])
    expect([story.round('no vault'), story.round('gone'), story.round('gone')]).toEqual([[], [], []])
    expect([story.round([finding()]), story.round([finding()])]).toEqual([[], ['resolve check_failed::: 1']])
    story.round([finding()])
    expect(story.state.incidents.map(({ key }) => key)).toEqual([KEY])
  })
})

describe('receivers', () => {
  it('tells one again what it did not take, and not the others', () => {
    const story = new Story()
    expect(story.round([finding()], ['pagerduty'])).toEqual([`trigger ${KEY} 1`])
    expect(pendingAlerts(story.state, 'pagerduty')).toEqual([])
    expect(story.round([finding()], ['pagerduty'])).toEqual([`trigger ${KEY} 1`])
    expect(story.round([finding()])).toEqual([`trigger ${KEY} 1`])
    expect(story.round([finding()])).toEqual([])
  })

  it('tells an end until it is taken', () => {
    const story = new Story()
    story.round([finding()])
    story.round([])
    expect(story.round([], ['pagerduty'])).toEqual([`resolve ${KEY} 1`])
    expect(story.round([], [])).toEqual([`resolve ${KEY} 1`])
    expect(story.round([])).toEqual([`resolve ${KEY} 1`])
    expect([story.round([]), story.state.incidents]).toEqual([[], []])
  })

  it('tells a beginning late rather than never, and nothing when it is over', () => {
    const story = new Story()
    story.round([finding()], [])
    expect(story.round([], [])).toEqual([`trigger ${KEY} 1`])
    expect(story.round([])).toEqual([])
    expect(story.state.incidents).toEqual([])
  })

  it('tells the end of what ended while its beginning was on its way', () => {
    const story = new Story()
    story.round([finding()], [])
    const [alert] = pendingAlerts(story.state, 'slack')
    story.round([], [])
    story.round([], [])
    expect(story.state.incidents).toEqual([])
    story.state = markTold(story.state, 'slack', alert!)
    expect(story.round([])).toEqual([`resolve ${KEY} 1`])
    expect([story.round([]), story.state.incidents]).toEqual([[], []])
  })

  it('forgets who is not told any more', () => {
    const story = new Story()
    story.round([finding()])
    story.state = nextState(story.state, { findings: [] }, 1, ['slack'])
    expect(Object.keys(story.state.told)).toEqual(['slack'])
  })
})

describe('a flood', () => {
  const flood = (count: number) => Array.from({ length: count }, (_, at) => finding({ name: `I-${at}` }))

  it('is sent ten at a time, with one that says how many more', () => {
    const story = new Story()
    const sent = [25, 25, 25, 25].map(count => story.round(flood(count), ['slack']))
    expect(sent.map(each => each.length)).toEqual([11, 10, 6, 0])
    expect(sent[0]!.at(-1)).toBe('trigger backlog 15')
    expect(sent[2]!.at(-1)).toBe('resolve backlog 0')
    expect(new Set(sent.flat()).size).toBe(27)
  })

  it('of ends as well', () => {
    const story = new Story()
    for (let round = 0; round < 4; round++) story.round(flood(12), ['slack'])
    story.round([], ['slack'])
    const sent = [story.round([], ['slack']), story.round([], ['slack']), story.round([], ['slack'])]
    expect(sent.map(each => each.length)).toEqual([11, 3, 0])
    expect(story.state.incidents).toEqual([])
  })

  it('does not grow while nobody takes anything', () => {
    const story = new Story()
    for (let round = 0; round < 5; round++) expect(story.round(flood(30), [])).toHaveLength(11)
  })
})

describe('parseState', () => {
  it('reads what was stored', () => {
    const story = new Story()
    story.round([finding(), finding({ name: 'x', line: null, us: null })])
    expect(parseState(JSON.parse(JSON.stringify(story.state)))).toEqual(story.state)
  })

  it('takes everything else for nothing', () => {
    const story = new Story()
    story.round([finding()])
    const whole = JSON.parse(JSON.stringify(story.state)) as Record<string, unknown>
    const [incident] = story.state.incidents
    const broken: unknown[] = [
      undefined,
      null,
      7,
      'text',
      [],
      {},
      { ...whole, atUs: -1 },
      { ...whole, atUs: 1e30 },
      { ...whole, told: null },
      { ...whole, told: { slack: null } },
      { ...whole, told: { slack: { [KEY]: '1' } } },
      { ...whole, incidents: {} },
      { ...whole, incidents: [null] },
      ...Object.keys(incident!).map(key => ({ ...whole, incidents: [{ ...incident, [key]: undefined }] })),
      ...Object.keys(finding()).map(key => ({
        ...whole,
        incidents: [{ ...incident, findings: [{ ...finding(), [key]: undefined }] }]
      }))
    ]
    for (const each of broken) expect(parseState(each), JSON.stringify(each)).toBe(EMPTY_STATE)
  })
})

describe('shortKey', () => {
  it('keeps what is short, and tells long ones apart', () => {
    const [a, b] = [`${'k'.repeat(300)}a`, `${'k'.repeat(300)}b`]
    expect(shortKey('k', 255)).toBe('k')
    expect(shortKey('k'.repeat(255), 255)).toBe('k'.repeat(255))
    expect([shortKey(a, 255).length, shortKey(b, 255).length]).toEqual([255, 255])
    expect(shortKey(a, 255)).not.toBe(shortKey(b, 255))
    expect(shortKey(a, 255)).toBe(shortKey(a, 255))
  })
})
