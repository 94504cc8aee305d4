import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { HOUR_US, isoMs } from '../../src/core/time.ts'
import { hourPath } from '../../src/vault/layout.ts'
import { listStreams, placeOf, type ReadHourOptions, readHour, recvUsOf } from '../../src/vault/streams.ts'

const HOUR = 400_000
const BASE_US = HOUR * HOUR_US
/** Long enough that a file of them is searched, not just read. */
const PADDING = 'x'.repeat(300)

let vault: string

beforeEach(() => {
  vault = mkdtempSync(join(tmpdir(), 'l3cap-streams-'))
})
afterEach(() => rmSync(vault, { recursive: true, force: true }))

function recordLine(us: number, number: number): string {
  return `{"timestamp_utc":"${isoMs(us)}","recv_us":${us},"number":${number},"padding":"${PADDING}"}`
}

function write(hour: number, lines: readonly string[], ending = '', tail = ''): string {
  const path = hourPath(vault, 'okx', 'trades', 'BTC-USDT', hour) + ending
  mkdirSync(dirname(path), { recursive: true })
  const text = lines.map(line => `${line}\n`).join('') + tail
  writeFileSync(path, ending === '.gz' ? gzipSync(text) : text)
  return path
}

async function read(path: string, options: ReadHourOptions = {}): Promise<[line: number, text: string][]> {
  const found: [number, string][] = []
  for await (const { lines, firstLine } of readHour(path, options)) {
    for (const [at, line] of lines.entries()) found.push([firstLine + at, line])
  }
  return found
}

describe('recvUsOf', () => {
  it.each([
    [recordLine(BASE_US + 5, 1), BASE_US + 5],
    [`{"recv_us":${BASE_US},"conn":"okx-1","frame":1,"dir":"tick"}`, BASE_US],
    ['{"recv_us":null,"conn":"okx-1"}', Number.NaN],
    ['{"timestamp_utc":"2023-12-14","recv_us":12345}', Number.NaN],
    ['{"timestamp_utc":"2023-12-14T15:30:46.001Z","other_us":1702567846001123}', Number.NaN],
    ['', Number.NaN],
    ['{"t', Number.NaN]
  ])('of %s is %s', (line, us) => {
    expect(recvUsOf(line)).toBe(us)
  })
})

describe('readHour', () => {
  const lines = Array.from({ length: 6000 }, (_, n) => recordLine(BASE_US + n * 1000, n))
  const numbered = lines.map((line, at): [number, string] => [at + 1, line])

  it.each(['', '.gz'])('gives every line with its number (%s)', async ending => {
    expect(await read(write(HOUR, lines, ending))).toEqual(numbered)
  })

  it.each(['', '.gz'])('gives the lines of a range with their numbers in the whole file (%s)', async ending => {
    const path = write(HOUR, lines, ending)
    for (const [from, to] of [
      [0, 1],
      [1, 6000],
      [2999, 3001],
      [5999, 6000],
      [4321, 4321],
      [0, 6000]
    ] as const) {
      const range = { fromUs: BASE_US + from * 1000, toUs: BASE_US + to * 1000 }
      expect(await read(path, range)).toEqual(numbered.slice(from, to))
    }
    // Between two lines, before the first and after the last one.
    expect(await read(path, { fromUs: BASE_US + 2500, toUs: BASE_US + 4500 })).toEqual(numbered.slice(3, 5))
    expect(await read(path, { fromUs: BASE_US - 5_000_000 })).toEqual(numbered)
    expect(await read(path, { fromUs: BASE_US + 6_000_000 })).toEqual([])
  })

  it('reads only the part of a plain file that a range needs', async () => {
    const path = write(HOUR, ['{"recv_us":"the first line is broken', ...lines.slice(1)])
    const range = { fromUs: BASE_US + 5_990_000 }
    expect(await read(path, range)).toEqual(numbered.slice(5990))
  })

  it('keeps a line without a time with those around it', async () => {
    const broken = [...lines.slice(0, 10), 'no record', ...lines.slice(10, 20)]
    const path = write(HOUR, broken)
    const found = await read(path, { fromUs: BASE_US + 5000, toUs: BASE_US + 15_000 })
    expect(found.map(([line]) => line)).toEqual([6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16])
    expect(found[5]).toEqual([11, 'no record'])
  })

  it('tells of what follows the last line end, with its number', async () => {
    const path = write(HOUR, lines, '', '{"half')
    const tails: [string, number][] = []
    const onTail = (tail: string, line: number) => void tails.push([tail, line])
    await read(path, { onTail })
    await read(path, { onTail, fromUs: BASE_US + 5_000_000 })
    expect(tails).toEqual([
      ['{"half', 6001],
      ['{"half', 6001]
    ])
    await read(path, { onTail, toUs: BASE_US + 1000 })
    expect(tails.length).toBe(2)
  })
})

describe('listStreams', () => {
  it('gives hours in order, the compressed part first, and only those of a range', () => {
    for (const hour of [HOUR + 1, HOUR, HOUR + 2]) write(hour, [recordLine(hour * HOUR_US, 1)])
    write(HOUR, [recordLine(BASE_US, 0)], '.gz')
    write(HOUR, ['half'], '.torn')
    const places = (range = {}) =>
      listStreams(vault, {}, range).map(({ feed, hours }) => [feed, hours.map(({ path }) => placeOf(vault, path))])
    const folder = placeOf(vault, dirname(hourPath(vault, 'okx', 'trades', 'BTC-USDT', HOUR)))
    const hh = (hour: number) => isoMs(hour * HOUR_US).slice(11, 13)
    expect(places()).toEqual([
      [
        'trades',
        [`${hh(HOUR)}.jsonl.gz`, `${hh(HOUR)}.jsonl`, `${hh(HOUR + 1)}.jsonl`, `${hh(HOUR + 2)}.jsonl`].map(
          file => `${folder}/${file}`
        )
      ]
    ])
    expect(places({ fromUs: (HOUR + 1) * HOUR_US, toUs: (HOUR + 2) * HOUR_US })).toEqual([
      ['trades', [`${folder}/${hh(HOUR + 1)}.jsonl`]]
    ])
    expect(places({ fromUs: (HOUR + 3) * HOUR_US })).toEqual([])
  })
})
