import { describe, expect, it } from 'vitest'
import { readFrameLine } from '../../src/capture/playback.ts'
import { HOUR_US } from '../../src/core/time.ts'
import type { Finding } from '../../src/quality/finding.ts'
import { FrameJudge, judgeTurn } from '../../src/quality/frames.ts'

const HOUR = 495_000
const START_US = HOUR * HOUR_US
const FILE = 'raw/bitfinex/frames/bitfinex-1/2026-06-20/00.jsonl'

const head = (frame: number, us = START_US + frame * 1000) =>
  `{"recv_us":${us},"conn":"bitfinex-1","frame":${frame},"dir":`
const frameIn = (frame: number, us?: number) => `${head(frame, us)}"in","msg":[17,"hb",${frame}]}`
const opening = (frame: number, run = 'a') =>
  `${head(frame)}"open","run":"${run}","url":"ws://127.0.0.1/","open":{"v":3,"instruments":[]}}`

/** An hour of ten lines, `change`d, as findings: `line rule`. */
function judged(change: (lines: string[]) => void = () => undefined, isPlayed = false): string[] {
  const lines = [opening(1), ...Array.from({ length: 9 }, (_, n) => frameIn(n + 2))]
  change(lines)
  return judgeLines(lines, isPlayed).map(({ rule, line }) => `${line} ${rule}`)
}

function judgeLines(lines: readonly string[], isPlayed = false): Finding[] {
  const findings: Finding[] = []
  const report = (finding: Finding) => findings.push(finding)
  const judge = new FrameJudge({ exchange: 'bitfinex', name: 'bitfinex-1', hour: HOUR, isPlayed, report })
  for (const [at, text] of lines.entries()) judge.take(readFrameLine(text), text, FILE, at + 1)
  judge.finish()
  return findings
}

describe('the lines of one hour', () => {
  it('are right as a capture writes them', () => {
    const others = [
      '"tick"}',
      '"out","msg":{"event":"ping"}}',
      '"in","text":"pong"}',
      '"close","code":1006,"reason":"","cause":"lost"}'
    ]
    expect(judged(lines => lines.push(...others.map((rest, n) => `${head(11 + n)}${rest}`)))).toEqual([])
  })

  const DAMAGES: [what: string, change: (lines: string[]) => void, told: string[]][] = [
    ['one missing', lines => lines.splice(5, 1), ['6 frame_missing']],
    ['three missing', lines => lines.splice(5, 3), ['6 frame_missing']],
    ['one twice', lines => lines.splice(5, 0, lines[5]!), ['7 frame_order']],
    ['two swapped', lines => lines.splice(5, 2, lines[6]!, lines[5]!), ['6 frame_order']],
    ['one moved back', lines => lines.splice(2, 0, ...lines.splice(7, 1)), ['3 frame_order']],
    ['a number too large', lines => lines.splice(5, 1, frameIn(600, START_US + 6000)), ['6 frame_order']],
    ['a number too small', lines => lines.splice(5, 1, frameIn(2, START_US + 6000)), ['6 frame_order']],
    ['the first missing', lines => lines.shift(), ['1 hour_start']],
    ['zeros', lines => lines.splice(5, 1, '\0'.repeat(90)), ['6 torn_line']],
    ['a line cut', lines => lines.splice(5, 1, lines[5]!.slice(0, 30)), ['6 bad_json']],
    ['a frame that is no JSON', lines => lines.splice(5, 1, lines[5]!.replace('[17', '[[17')), ['6 bad_json']],
    ['a key missing', lines => lines.splice(5, 1, lines[5]!.replace('"frame":6,', '')), ['6 bad_record']],
    ['an unknown direction', lines => lines.splice(5, 1, `${head(6)}"up"}`), ['6 bad_record']],
    ['another connection', lines => lines.splice(5, 1, lines[5]!.replace('finex-1', 'finex-2')), ['6 bad_record']],
    ['a time run back', lines => lines.splice(5, 1, frameIn(6, START_US + 1500)), ['6 time_back']],
    ['a time run ahead', lines => lines.splice(5, 1, frameIn(6, START_US + 900_000)), ['6 time_back']],
    ['the hour before', lines => lines.splice(5, 1, frameIn(6, START_US - 1)), ['6 wrong_hour']],
    ['the hour after', lines => lines.splice(5, 1, frameIn(6, START_US + HOUR_US)), ['6 wrong_hour']],
    ['frames skipped', lines => lines.push(`${head(11)}"skip","from":${START_US},"count":4}`), ['11 frames_skipped']]
  ]
  it.each(DAMAGES)('%s', (_, change, told) => {
    expect(judged(change)).toEqual(told)
  })

  it('tell of each hole with its numbers', () => {
    const [finding] = judgeLines([opening(1), frameIn(2), frameIn(6)])
    expect(finding).toMatchObject({ severity: 'error', feed: 'frames', file: FILE, line: 3, us: START_US + 6000 })
    expect(finding!.message).toContain('frames 3 to 5 are missing (3 lines)')
  })

  it('of another process begin with 1', () => {
    expect(
      judgeLines([opening(1), frameIn(2), opening(1, 'b').replace(`${START_US + 1000}`, `${START_US + 2000}`)])
    ).toEqual([])
    expect(judgeLines([opening(1), frameIn(2), opening(3, 'b')]).map(({ rule }) => rule)).toEqual(['frame_missing'])
    expect(judgeLines([opening(1), frameIn(2), opening(3)])).toEqual([])
    expect(judgeLines([opening(1), frameIn(2), opening(4)]).map(({ rule }) => rule)).toEqual(['frame_missing'])
  })

  it('are parsed by who plays them', () => {
    expect(judged(lines => lines.splice(5, 1, lines[5]!.replace('[17', '[[17')), true)).toEqual([])
  })
})

it('two hours of one process follow each other', () => {
  const edge = (frame: number, run = 'a') => ({ conn: 'x', run, frame, dir: 'in', us: 0, file: '', line: 1 })
  expect(judgeTurn(edge(17), edge(18))).toBeUndefined()
  expect(judgeTurn(edge(17), edge(1, 'b'))).toBeUndefined()
  expect(judgeTurn(edge(17), edge(20))).toContain('2 lines are missing')
  expect(judgeTurn(edge(17), edge(17))).toContain('ended the one before')
})
