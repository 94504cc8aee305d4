import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { afterAll, expect, it } from 'vitest'
import { HOUR_US } from '../../src/core/time.ts'
import { compareStreams, imageStartUs, Merge } from '../../src/replay/merge.ts'
import { hourPath } from '../../src/vault/layout.ts'
import { readBytes } from '../../src/vault/reader.ts'
import { listStreams, type Range, recvUsOf } from '../../src/vault/streams.ts'

const HOUR = 498_678
const START_US = HOUR * HOUR_US
const FEEDS = ['status', 'l3_events', 'l2_updates', 'trades', 'l3_spot', 'l2_perps', 'frames']
const root = mkdtempSync(join(tmpdir(), 'l3cap-merge-'))
let count = 0
afterAll(() => rmSync(root, { recursive: true, force: true }))

function newVault(): string {
  return join(root, String(++count))
}

/** A line as the vault has it: of this feed, at this moment, with something that tells it from all others. */
function lineOf(feed: string, us: number, what: string): string {
  if (feed === 'frames') return `{"recv_us":${us},"conn":"c-1","frame":1,"dir":"in","msg":"${what}"}`
  return `{"timestamp_utc":"2026-11-20T06:52:04.795Z","recv_us":${us},"exchange":"e","note":"${what}"}`
}

function write(path: string, content: string | Buffer): void {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, content)
}

interface Told {
  readonly path: string
  readonly line: number | null
  readonly what: string
}

/** What the merge gives, line by line, `stepUs` at a time. */
async function merged(vault: string, range: Range = {}, stepUs = Number.POSITIVE_INFINITY) {
  const told: Told[] = []
  const inputs = listStreams(vault, {}, range).map(stream => ({ stream, ...range }))
  const merge = new Merge(inputs.reverse(), (path, line, what) => told.push({ path, line, what }))
  const parts: Buffer[] = []
  while (merge.nextUs < Number.POSITIVE_INFINITY) {
    const untilUs = merge.nextUs + stepUs
    for (let bytes = await merge.fill(untilUs); bytes.length > 0; bytes = await merge.fill(untilUs)) {
      for (const line of bytes.toString().trimEnd().split('\n')) {
        const us = recvUsOf(line)
        // What tells the time of another hour goes with the line before it.
        if (us < START_US + 24 * HOUR_US) expect(us).toBeLessThanOrEqual(untilUs)
      }
      parts.push(Buffer.from(bytes))
    }
  }
  const text = Buffer.concat(parts).toString()
  return { lines: text === '' ? [] : text.slice(0, -1).split('\n'), endsWell: /^$|\n$/.test(text), told }
}

interface Made {
  readonly feed: string
  readonly name: string
  readonly rows: readonly { hour: number; us: number; size: number }[]
  readonly kinds: readonly ('plain' | 'gz' | 'both' | 'torn')[]
}

const STREAM: fc.Arbitrary<Made> = fc.record({
  feed: fc.constantFrom(...FEEDS),
  name: fc.constantFrom('A', 'B', 'C'),
  rows: fc.array(fc.record({ hour: fc.nat(2), us: fc.nat(40), size: fc.nat(300) }), { maxLength: 30 }),
  kinds: fc.array(fc.constantFrom('plain', 'gz', 'both', 'torn'), { minLength: 3, maxLength: 3 })
})

/** Writes the streams, each hour as its kind says, and gives the lines in the order that the merge promises. */
function writeStreams(vault: string, made: readonly Made[]): { us: number; text: string }[] {
  const unique = [...new Map(made.map(each => [`${each.feed}/${each.name}`, each])).values()]
  const all = unique.flatMap(({ feed, name, rows, kinds }) => {
    const sorted = [...rows].sort((a, b) => a.hour - b.hour || a.us - b.us)
    const lines = sorted.map(({ hour, us, size }, at) => {
      const moment = START_US + hour * HOUR_US + us
      return { hour, us: moment, at, text: lineOf(feed, moment, `${name}-${at}-${'x'.repeat(size)}é`) }
    })
    for (let hour = 0; hour < 3; hour++) {
      const texts = lines.filter(line => line.hour === hour)
      const whole = texts.map(({ text }) => `${text}\n`).join('')
      const path = hourPath(vault, 'e', feed, name, HOUR + hour)
      // Late lines are younger than all that was compressed.
      const cut = texts.findIndex(({ us }) => us > (texts[0]?.us ?? 0))
      if (kinds[hour] === 'gz') write(`${path}.gz`, gzipSync(whole))
      else if (kinds[hour] === 'both' && cut > 0) {
        const head = texts.slice(0, cut).map(({ text }) => `${text}\n`)
        write(`${path}.gz`, gzipSync(head.join('')))
        write(path, whole.slice(head.join('').length))
      } else write(path, kinds[hour] === 'torn' ? `${whole}{"recv_us":17` : whole)
    }
    return lines.map(line => ({ ...line, stream: { exchange: 'e', feed, name, hours: [] } }))
  })
  return all.sort((a, b) => a.us - b.us || compareStreams(a.stream, b.stream) || a.at - b.at)
}

it('gives what a sort of all lines gives, whatever the files, the range and the steps', async () => {
  const moment = fc.option(fc.nat(3 * 41), { nil: undefined })
  await fc.assert(
    fc.asyncProperty(
      fc.array(STREAM, { minLength: 1, maxLength: 6 }),
      moment,
      moment,
      fc.nat(30),
      async (made, from, to, step) => {
        const vault = newVault()
        const want = writeStreams(vault, made)
        const at = (n: number | undefined) => n && START_US + Math.floor(n / 41) * HOUR_US + (n % 41)
        const range = { fromUs: at(from), toUs: at(to) }
        const inRange = ({ us }: { us: number }) => us >= (range.fromUs ?? 0) && us < (range.toUs ?? Infinity)
        const texts = want.filter(inRange).map(({ text }) => text)
        const have = await merged(vault, range, step === 0 ? Number.POSITIVE_INFINITY : step)
        expect(have.lines).toEqual(texts)
        expect(have.endsWell).toBe(true)
        expect(have.told).toEqual([])
        rmSync(vault, { recursive: true, force: true })
      }
    ),
    { numRuns: 40, seed: 5 }
  )
})

it('puts what came at one moment into the order of the feeds, then of the instruments', async () => {
  const vault = newVault()
  for (const feed of [...FEEDS].reverse()) {
    for (const name of ['B', 'A'])
      write(hourPath(vault, 'e', feed, name, HOUR), `${lineOf(feed, START_US + 5, feed + name)}\n`)
  }
  const { lines } = await merged(vault)
  const order = ['status', 'l3_events', 'l2_updates', 'trades', 'l2_perps', 'l3_spot', 'frames']
  expect(lines).toEqual(order.flatMap(feed => ['A', 'B'].map(name => lineOf(feed, START_US + 5, feed + name))))
})

it('keeps the lines of a file in their order, and lets no wrong time hold up the rest', async () => {
  const vault = newVault()
  const row = (us: number, what: string) => lineOf('trades', us, what)
  const one = [
    row(START_US + 1, 'a'),
    row(START_US + 900 * HOUR_US, 'b'),
    row(START_US + 3, 'c'),
    row(START_US + 2, 'd')
  ]
  const other = [row(START_US + 2, 'A'), row(START_US + 4, 'B')]
  write(hourPath(vault, 'e', 'trades', 'X', HOUR), `${one.join('\n')}\n`)
  write(hourPath(vault, 'e', 'trades', 'Y', HOUR), `${other.join('\n')}\n`)
  expect((await merged(vault)).lines).toEqual([one[0], one[1], other[0], one[2], one[3], other[1]])
})

it('leaves lines out that are none, and a broken end, and tells the places', async () => {
  const vault = newVault()
  const good = [1, 2, 3].map(n => lineOf('trades', START_US + n, String(n)))
  const plain = hourPath(vault, 'e', 'trades', 'X', HOUR)
  write(plain, `${good[0]}\n\0\0\0\n${good[1]}\n${good[2]!.slice(0, -4)}\n\n${good[2]}\n`)
  const gz = `${hourPath(vault, 'e', 'trades', 'Y', HOUR)}.gz`
  const packed = gzipSync(`${lineOf('trades', START_US, 'Y')}\n`.repeat(20_000))
  write(gz, packed.subarray(0, packed.length - 20))
  const { lines, told } = await merged(vault)
  expect(lines.filter(line => !line.includes('"Y"'))).toEqual(good)
  expect(told.filter(({ path }) => path === plain).map(({ line }) => line)).toEqual([2, 4, 5])
  expect(told.filter(({ path }) => path === gz)).toEqual([
    { path: gz, line: null, what: expect.stringContaining('damaged') }
  ])
})

it('gives the lines once that a crash of retention left twice', async () => {
  const rows = [1, 2, 3, 4].map(n => `${lineOf('trades', START_US + n, String(n))}\n`)
  const cases: [gz: string[], plain: string[]][] = [
    [rows, rows],
    [rows, rows.slice(2)],
    [rows.slice(0, 2), rows]
  ]
  for (const [gz, plain] of cases) {
    const vault = newVault()
    const path = hourPath(vault, 'e', 'trades', 'X', HOUR)
    write(`${path}.gz`, gzipSync(gz.join('')))
    write(path, plain.join(''))
    expect((await merged(vault)).lines.map(line => `${line}\n`)).toEqual(rows)
  }
})

it('gives lines that are longer than its buffer', async () => {
  const vault = newVault()
  const rows = [10, 3_000_000, 20, 1_048_000].map((size, n) => lineOf('frames', START_US + n, 'x'.repeat(size)))
  write(hourPath(vault, 'e', 'frames', 'c-1', HOUR), `${rows.join('\n')}\n`)
  expect((await merged(vault)).lines).toEqual(rows)
})

it('opens an hour that retention has compressed since it was listed', async () => {
  const vault = newVault()
  const path = hourPath(vault, 'e', 'trades', 'X', HOUR)
  const text = lineOf('trades', START_US + 1, 'a')
  write(path, `${text}\n`)
  const [stream] = listStreams(vault)
  rmSync(path)
  write(`${path}.gz`, gzipSync(`${text}\n`))
  const merge = new Merge([{ stream: stream! }], () => expect.unreachable())
  expect((await merge.fill()).toString()).toBe(`${text}\n`)
})

it('finds the image before a moment', async () => {
  const vault = newVault()
  const rows = [5, 10, 10, 20, 30].map(
    (us, n) =>
      `${lineOf('l3_events', START_US + us, `${n}`).replace('"note"', n % 2 ? '"event_type":"clear","note"' : '"note"')}\n`
  )
  write(hourPath(vault, 'e', 'l3_events', 'X', HOUR), rows.join(''))
  const [stream] = listStreams(vault)
  const at = async (us: number) => (await imageStartUs(stream!, START_US + us)) - START_US
  expect(await Promise.all([4, 11, 20, 25, 100].map(at))).toEqual([4, 10, 10, 20, 20])
  write(hourPath(vault, 'e', 'l3_events', 'X', HOUR), rows.join('').replaceAll(`${START_US + 20},`, 'x,'))
  expect(await Promise.all([25, 100].map(at))).toEqual([10, 10])
})

it('costs little more than a plain pass over the bytes', async () => {
  const vault = newVault()
  const paths: string[] = []
  for (const name of ['A', 'B', 'C', 'D']) {
    for (const feed of ['l3_events', 'trades']) {
      const rows = Array.from({ length: 10_000 }, (_, n) => lineOf(feed, START_US + n * 1000, 'x'.repeat(200)))
      paths.push(hourPath(vault, 'e', feed, name, HOUR))
      write(paths.at(-1)!, `${rows.join('\n')}\n`)
    }
  }
  const time = async (pass: () => Promise<void>) => {
    const began = performance.now()
    await pass()
    return performance.now() - began
  }
  const plain = async () => {
    let lines = 0
    for (const path of paths) {
      for await (const chunk of readBytes(path)) {
        for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, at + 1)) lines++
      }
    }
    expect(lines).toBe(80_000)
  }
  const merging = async () => {
    const merge = new Merge(
      listStreams(vault).map(stream => ({ stream })),
      () => expect.unreachable()
    )
    while ((await merge.fill()).length > 0);
  }
  const ratios: number[] = []
  for (let round = 0; round < 5; round++) ratios.push((await time(merging)) / (await time(plain)))
  // The best of several: the machine may have been busy with something else.
  expect(Math.min(...ratios)).toBeLessThan(12)
})
