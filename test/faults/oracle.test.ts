import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Stage } from './harness.ts'
import { hourFiles, judge, type Life } from './oracle.ts'

// One good run of two lives, the first of which was killed. Then its vault is damaged in many ways: the oracle must find
// each of them, and nothing in the good one.

let stage: Stage

beforeAll(async () => {
  stage = await Stage.open({ seed: 5, kind: 'oracle', eventsPerSecond: 60 })
  const first = stage.start()
  await first.heard(60)
  await first.kill()
  const second = stage.start()
  await second.heard(80)
  stage.simulators[1]!.inject({ kind: 'drop', instrument: 'ETH-USDT-SWAP' })
  stage.simulators[0]!.inject({ kind: 'reorder', instrument: 'BTCUSD' })
  await second.heard(160)
  expect(await second.stop(), second.output.slice(-2000)).toBe(0)
}, 60_000)

afterAll(async () => {
  await stage.close()
})

type Change = (lines: string[]) => string[] | undefined

/** Judges a copy of the vault in which one file of a stream was changed. */
function judgeChanged(
  exchange: string,
  feed: string,
  name: string,
  change: Change,
  lives: readonly Life[] = stage.lives
) {
  const copy = join(stage.folder, 'damaged')
  cpSync(join(stage.vault, 'raw', exchange), join(copy, 'raw', exchange), { recursive: true })
  try {
    const path = hourFiles(copy, exchange, feed, name).at(-1)!
    const lines = readFileSync(path, 'utf8').trimEnd().split('\n')
    const changed = change([...lines])
    expect(changed, 'the damage found its place').toBeDefined()
    expect(changed).not.toEqual(lines)
    writeFileSync(path, `${changed!.join('\n')}\n`)
    const sources = stage.sources.filter(source => source.exchange === exchange)
    return judge(copy, lives, sources).findings
  } finally {
    rmSync(copy, { recursive: true })
  }
}

const isUpdate = (line: string) => line.includes('"dir":"in","msg":{') && line.includes('"action":"update"')

/** Places of some kind of line in the middle of the last life. */
function middle(lines: readonly string[], fits: (line: string) => boolean): number {
  const places = lines.flatMap((line, at) => (fits(line) ? [at] : []))
  return places[Math.floor(places.length * 0.8)] ?? -1
}

/** Numbers the frames of the last life anew, so that only what is missing can give the damage away. */
function renumbered(lines: string[]): string[] {
  let frame = 0
  return lines.map(line => {
    if (line.includes('"dir":"open"') && line.includes('"frame":1,')) frame = 0
    frame++
    return line.replace(/"frame":\d+/, `"frame":${frame}`)
  })
}

describe('the oracle', () => {
  test('finds nothing in a good vault, and compares a fair number of books', () => {
    const { findings, figures } = stage.judge(true)
    expect(findings).toEqual([])
    expect(figures.frames).toBeGreaterThan(250)
    expect(figures.snapshots).toBeGreaterThan(20)
    expect(figures.sessions).toBe(4)
  })

  const FRAMES: [string, Change][] = [
    ['a line removed', lines => lines.toSpliced(middle(lines, isUpdate), 1)],
    ['a line removed and the rest numbered anew', lines => renumbered(lines.toSpliced(middle(lines, isUpdate), 1))],
    ['a line doubled', lines => lines.toSpliced(middle(lines, isUpdate), 0, lines[middle(lines, isUpdate)]!)],
    [
      'two frames swapped',
      lines => {
        const place = middle(lines, isUpdate)
        const other = lines.findIndex((line, at) => at > place && isUpdate(line))
        const textOf = (line: string) => line.slice(line.indexOf('"msg":'))
        const put = (at: number, from: number) =>
          lines[at]!.slice(0, lines[at]!.indexOf('"msg":')) + textOf(lines[from]!)
        return lines.with(place, put(place, other)).with(other, put(other, place))
      }
    ],
    [
      'one digit changed',
      lines => {
        const place = middle(lines, line => /"seqId":\d/.test(line))
        return lines.with(
          place,
          lines[place]!.replace(/"seqId":(\d+)/, (_, digits) => `"seqId":${digits}1`)
        )
      }
    ],
    [
      'a space put into a frame',
      lines => {
        const place = middle(lines, isUpdate)
        return lines.with(place, lines[place]!.replace('"action":', '"action": '))
      }
    ],
    [
      'a skip that did not happen',
      lines => {
        const place = middle(lines, isUpdate)
        const head = lines[place]!.slice(0, lines[place]!.indexOf('"dir":'))
        return lines.with(place, `${head}"dir":"skip","from":1,"count":2}`)
      }
    ],
    [
      'a foreign frame',
      lines => {
        const place = middle(lines, isUpdate)
        const line = lines[place]!
        return renumbered(lines.toSpliced(place, 0, `${line.slice(0, line.indexOf('"msg":'))}"msg":{"event":"x"}}`))
      }
    ],
    ['a torn line', lines => lines.with(middle(lines, isUpdate), lines[middle(lines, isUpdate)]!.slice(0, -20))],
    [
      'no close at the end',
      lines =>
        lines.toSpliced(
          lines.findLastIndex(line => line.includes('"dir":"close"')),
          1
        )
    ],
    [
      'a receive time that goes back',
      lines => {
        const place = middle(lines, isUpdate)
        return lines.with(place, lines[place]!.replace(/"recv_us":\d/, '"recv_us":0'))
      }
    ],
    ['everything of the last second before the end removed', lines => lines.slice(0, -40)]
  ]

  for (const [what, change] of FRAMES) {
    test(`finds in the frames ${what}`, () => {
      expect(judgeChanged('okx', 'frames', 'okx-1', change)).not.toEqual([])
    })
  }

  const SHOTS: [string, string, string, Change][] = [
    [
      'the size of a level changed',
      'okx',
      'l2_perps',
      lines => {
        const place = middle(lines, line => line.includes('"gap_detected":false'))
        return lines.with(place, lines[place]!.replace(/(\["[\d.]+","[\d.]+)(",)/, '$15$2'))
      }
    ],
    [
      'the number of orders changed',
      'bitfinex',
      'l3_spot',
      lines => {
        const place = middle(lines, line => line.includes('"gap_detected":false'))
        return lines.with(place, lines[place]!.replace(/"0","(\d+)"\]/, '"0","1$1"]'))
      }
    ],
    [
      'a level missing',
      'bitfinex',
      'l3_spot',
      lines => {
        const place = middle(lines, line => line.includes('"gap_detected":false'))
        return lines.with(place, lines[place]!.replace(/"bids_top400":\[\[[^\]]*\],/, '"bids_top400":['))
      }
    ],
    [
      'the best price changed',
      'bitfinex',
      'l3_spot',
      lines => {
        const place = middle(lines, line => line.includes('"gap_detected":false'))
        return lines.with(place, lines[place]!.replace(/"best_bid":"/, '"best_bid":"1'))
      }
    ],
    [
      'the number of its frame changed',
      'bitfinex',
      'l3_spot',
      lines => {
        const place = middle(lines, line => line.includes('"gap_detected":false'))
        return lines.with(
          place,
          lines[place]!.replace(/"frame":(\d+)/, (_, frame) => `"frame":${Number(frame) + 40}`)
        )
      }
    ],
    [
      'the moment of synchronisation of an earlier book',
      'okx',
      'l2_perps',
      lines => {
        const synced = lines.map(line => /"synced_at":"[^"]*"/.exec(line)![0])
        const place = lines.findIndex((line, at) => at > 0 && synced[at] !== synced[at - 1] && !line.includes('true'))
        return place < 0
          ? undefined
          : lines.map((line, at) => (at >= place ? line.replace(synced[at]!, synced[0]!) : line))
      }
    ]
  ]

  for (const [what, exchange, feed, change] of SHOTS) {
    test(`finds in the snapshots ${what}`, () => {
      const name = exchange === 'okx' ? 'ETH-USDT-SWAP' : 'BTCUSD'
      expect(judgeChanged(exchange, feed, name, change)).not.toEqual([])
    })
  }

  test('finds a flag that was taken off a snapshot together with its gap', () => {
    const change: Change = lines => {
      const place = lines.findIndex(line => line.includes('"gap_detected":true'))
      return place < 0 ? undefined : renamedSync(lines, place)
    }
    expect(judgeChanged('okx', 'l2_perps', 'ETH-USDT-SWAP', change)).not.toEqual([])
  })

  test('finds a life without started, and a clean one without stopped', () => {
    const without =
      (event: string): Change =>
      lines =>
        lines.filter(line => !line.includes(`"event":"${event}"`))
    expect(judgeChanged('okx', 'status', 'BTC-USDT-SWAP', without('started'))).not.toEqual([])
    expect(judgeChanged('okx', 'status', 'BTC-USDT-SWAP', without('stopped'))).not.toEqual([])
  })

  test('finds a death that took more than a second', () => {
    const [first, ...others] = stage.lives
    const later = [{ ...first!, endedMs: first!.endedMs + 60_000 }, ...others]
    // What was sent between the kill and the end of its sockets is lost by the later death, too.
    const { findings, figures } = judge(stage.vault, later, stage.sources)
    expect(findings.length > 0).toBe(figures.lost > 0)
    const clean = [{ ...first!, end: 'clean' as const }, ...others]
    expect(judge(stage.vault, clean, stage.sources).findings).not.toEqual([])
  })

  test('finds an exchange whose files are gone', () => {
    const copy = join(stage.folder, 'gone')
    cpSync(stage.vault, copy, { recursive: true })
    rmSync(join(copy, 'raw', 'okx'), { recursive: true })
    expect(readdirSync(join(copy, 'raw'))).toEqual(['bitfinex'])
    expect(judge(copy, stage.lives, stage.sources).findings).not.toEqual([])
  })
})

/** Snapshots from a place on as if the book before had never been lost. */
function renamedSync(lines: string[], place: number): string[] {
  const before = /"synced_at":"[^"]*"/.exec(lines[place]!)![0]
  return lines.map((line, at) =>
    at < place
      ? line
      : line.replace('"gap_detected":true', '"gap_detected":false').replace(/"synced_at":"[^"]*"/, before)
  )
}
