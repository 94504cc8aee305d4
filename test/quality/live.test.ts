import { describe, expect, it } from 'vitest'
import type { Finding } from '../../src/quality/finding.ts'
import { judgeGap, judgeLive, type LiveInstrument, type LiveProcess } from '../../src/quality/live.ts'

const NOW_US = 1_795_000_000_000_000
const ago = (seconds: number) => NOW_US - seconds * 1_000_000

function instrument(name: string, more: Partial<LiveInstrument> = {}): LiveInstrument {
  return { name, state: 'live', sinceUs: ago(600), takenUs: ago(4), storedUs: ago(1), lagMs: 12, ...more }
}

function capture(more: Partial<LiveProcess> = {}): LiveProcess {
  return {
    ...{
      exchange: 'okx',
      file: 'meta/okx/health/okx-1.json',
      life: 'runs',
      pid: 17,
      host: 'a',
      startedUs: ago(900),
      saidUs: ago(3)
    },
    ...{ cadenceMs: 2000, pause: null, freeBytes: 1e12, instruments: [instrument('A'), instrument('B')] },
    ...more
  }
}

function judged(...processes: LiveProcess[]): string[] {
  const findings: Finding[] = []
  judgeLive(processes, NOW_US, finding => findings.push(finding))
  return findings.map(({ severity, rule, exchange, name }) => `${severity} ${rule} ${exchange} ${name}`.trimEnd())
}

describe('a capture', () => {
  it('that is live gives no finding, however quiet its market is', () => {
    expect(judged(capture(), capture({ instruments: [instrument('A', { lagMs: null })] }))).toEqual([])
  })

  it.each([
    ['gone', 'error dead_capture okx'],
    ['silent', 'error dead_capture okx'],
    ['exists', 'error dead_disk okx'],
    ['stopped', 'warning dead_capture okx']
  ] as const)('that is %s is told once, its instruments are not', (life, told) => {
    const broken = [instrument('A', { state: 'broken', sinceUs: ago(300) })]
    expect(judged(capture({ life, instruments: broken }))).toEqual([told])
  })

  it('of several exchanges is one process', () => {
    const others = ['bitfinex', 'okx', 'binance'].map(exchange => capture({ exchange, life: 'gone' }))
    expect(judged(...others)).toEqual(['error dead_capture'])
    expect(judged(others[0]!, { ...others[1]!, pid: 18 })).toEqual([
      'error dead_capture bitfinex',
      'error dead_capture okx'
    ])
  })

  it('whose writing is paused has a dead disk', () => {
    expect(judged(capture({ pause: 'no space left' }))).toEqual(['error dead_disk okx'])
  })

  it('whose snapshots do not reach the files has a dead disk', () => {
    expect(judged(capture({ instruments: [instrument('A', { storedUs: ago(40) })] }))).toEqual(['error dead_disk okx'])
    expect(judged(capture({ instruments: [instrument('A', { storedUs: null })] }))).toEqual(['error dead_disk okx'])
    expect(judged(capture({ instruments: [instrument('A', { storedUs: ago(12) })] }))).toEqual([])
  })

  it('is warned of a disk that is nearly full', () => {
    expect(judged(capture({ freeBytes: 1e8 }))).toEqual(['warning dead_disk okx'])
    expect(judged(capture({ freeBytes: 0 }))).toEqual(['error dead_disk okx'])
  })
})

describe('an instrument', () => {
  const one = (more: Partial<LiveInstrument>) =>
    judged(capture({ instruments: [instrument('A', more), instrument('B')] }))

  it.each<[string, Partial<LiveInstrument>, boolean]>([
    ['without a book for 12 s', { state: 'broken', sinceUs: ago(12) }, true],
    ['without a book for 10 s', { state: 'broken', sinceUs: ago(10) }, false],
    ['that is refused', { state: 'refused' }, true],
    ['that waits for its first book since 15 min', { state: 'waiting', sinceUs: ago(900) }, true],
    ['without a snapshot for 12 s', { takenUs: ago(12), storedUs: ago(12) }, true],
    ['without a snapshot for 10 s', { takenUs: ago(10), storedUs: ago(10) }, false],
    ['that is live since 3 s, after a long loss', { sinceUs: ago(3), takenUs: ago(90), storedUs: ago(90) }, false]
  ])('%s', (_, more, isMute) => {
    expect(one(more)).toEqual(isMute ? ['error mute_instrument okx A'] : [])
  })

  it('may wait for its first book soon after the start', () => {
    const waiting = instrument('A', { state: 'waiting', takenUs: null, storedUs: null })
    expect(judged(capture({ startedUs: ago(30), instruments: [waiting] }))).toEqual([])
  })

  it('is not told by itself where all are mute', () => {
    const broken = ['A', 'B'].map(name => instrument(name, { state: 'broken', sinceUs: ago(20) }))
    expect(judged(capture({ instruments: broken }))).toEqual(['error mute_instrument okx'])
  })

  it('whose data are late is a warning', () => {
    expect(one({ lagMs: 11_000 })).toEqual(['warning late_data okx A'])
    expect(one({ lagMs: -11_000 })).toEqual(['warning late_data okx A'])
  })
})

it.each([
  [70, null, 'error'],
  [50, null, null],
  [70, 40, 'warning'],
  [3, 1, 'warning']
] as const)('a gap from %s s ago, over %s s ago', (lost, back, severity) => {
  const gap = { lostUs: ago(lost), backUs: back === null ? null : ago(back), cause: 'sequence' }
  const found = judgeGap(gap, { exchange: 'okx', name: 'A', file: 'x', line: 3 }, NOW_US)
  expect(found?.severity ?? null).toBe(severity)
})
