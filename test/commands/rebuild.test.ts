import { execFile } from 'node:child_process'
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative, resolve } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { derivedFiles, ensureBuilt, expectSameBytes, recordsOf } from '../helpers/vault.ts'

const CLI = resolve('bin/l3cap.js')
let folder: string
let vault: string
/** The largest frames file, by its path below the vault, and its lines. */
let frames: string
let lines: string[]
/** The place of a frame well behind the image, which changes the book. */
let place: number
let copies = 0

function l3cap(...given: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise(done => {
    execFile(process.execPath, [CLI, ...given], { timeout: 30_000 }, (error, stdout, stderr) => {
      done({ code: typeof error?.code === 'number' ? error.code : error ? -1 : 0, stdout, stderr })
    })
  })
}

beforeAll(async () => {
  ensureBuilt()
  folder = mkdtempSync(join(tmpdir(), 'l3cap-rebuild-'))
  vault = join(folder, 'vault')
  const where = ['--vault', vault, '--log-dir', join(folder, 'logs')]
  const run = await l3cap('run', '--simulate', ...where, '--duration', '1500ms', '--cadence', '100ms')
  expect(run.code, run.stderr).toBe(0)
  const root = join(vault, 'raw', 'bitfinex', 'frames')
  const found = readdirSync(root, { recursive: true, withFileTypes: true }).filter(entry => entry.isFile())
  const paths = found.map(entry => join(entry.parentPath, entry.name))
  const largest = paths.sort((a, b) => statSync(b).size - statSync(a).size)[0]!
  frames = relative(vault, largest)
  lines = readFileSync(largest, 'utf8').trimEnd().split('\n')
  const isChange = (line: string) => /"msg":\[\d+,\[\d+,/.test(line)
  place = lines.findIndex((line, at) => at > lines.length / 2 && isChange(line))
  expect(place, `of ${lines.length} lines`).toBeGreaterThan(10)
}, 60_000)
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Rebuilds a copy whose frames file has another content, or is another file. */
async function rebuilt(content: string | Buffer, ending = '') {
  const copy = join(folder, `copy-${++copies}`)
  cpSync(vault, copy, { recursive: true })
  rmSync(join(copy, frames))
  writeFileSync(join(copy, frames) + ending, content)
  const out = join(copy, 'again')
  const done = await l3cap('rebuild', '--vault', copy, '--out', out, '--json')
  const { damaged } = JSON.parse(done.stdout) as { damaged: string[] }
  return { ...done, damaged, out, path: join(copy, frames) + ending }
}

function joined(change: (all: string[]) => void): string {
  const all = [...lines]
  change(all)
  return `${all.join('\n')}\n`
}

/** What can happen to the frame in `place`, and the words for it. */
const DAMAGES: [what: string, spoil: () => string, told: (line: number) => string][] = [
  [
    'a line that is none',
    () => joined(all => all.splice(place, 1, '{"recv_us":17 \u001b[2J')),
    line => `line ${line}: no`
  ],
  ['zeros for a line', () => joined(all => all.splice(place, 1, '\0'.repeat(300))), line => `line ${line}: no`],
  [
    'three lines missing',
    () => joined(all => all.splice(place, 3)),
    line => `line ${line}: frame ${line + 3} of bitfinex-1`
  ],
  [
    'a frame that is no JSON any more',
    () => joined(all => all.splice(place, 1, all[place]!.replace('"msg":[', '"msg":[['))),
    line => `line ${line}: frame ${line} of bitfinex-1 is broken`
  ],
  ['a line twice', () => joined(all => all.splice(place, 0, all[place]!)), line => `line ${line + 1}: frame ${line} of`]
]

it.each(DAMAGES)('goes on past %s, names it, and trusts no book behind it', async (_, spoil, told) => {
  const { code, damaged, stderr, out, path } = await rebuilt(spoil())
  expect(code).toBe(1)
  expect(damaged).toEqual([expect.stringContaining(`${path}: ${told(place + 1)}`)])
  expect(stderr).toContain(path)
  expect(stderr).not.toContain('\u001b')
  const was = recordsOf(vault, 'bitfinex', 'l3_events', 'BTCUSD')
  const is = recordsOf(out, 'bitfinex', 'l3_events', 'BTCUSD')
  const gap = is.findIndex(({ event_type }) => event_type === 'gap')
  expect(is.slice(0, gap)).toEqual(was.slice(0, gap))
  // It stands where the damage is: what comes before it was seen, what comes behind it was not.
  expect(is[gap]!.frame).toBeGreaterThanOrEqual(place)
  expect(is[gap]!.frame).toBeLessThan(place + 4)
  expect(is).toHaveLength(gap + 1)
  expect(is[gap]!.metadata).toMatchObject({ reason: 'damaged' })
  const shots = recordsOf(out, 'bitfinex', 'l3_spot', 'BTCUSD')
  expect(shots.at(-1)).toMatchObject({ gap_detected: true })
})

it('goes on past the end of a .gz that was cut off', async () => {
  // Without compression the cut falls into the middle of the lines.
  const whole = gzipSync(
    joined(() => undefined),
    { level: 0 }
  )
  const { code, damaged, out, path } = await rebuilt(whole.subarray(0, Math.floor(whole.length * 0.9)), '.gz')
  expect(code).toBe(1)
  expect(damaged).toEqual([expect.stringMatching(/: line \d+: what follows is damaged: unexpected end of file$/)])
  expect(damaged[0]!.split(path)).toHaveLength(2)
  expect(recordsOf(out, 'bitfinex', 'l3_events', 'BTCUSD').at(-1)).toMatchObject({ event_type: 'gap' })
})

it('passes over a byte order mark and says so; all lines count', async () => {
  const { code, damaged, out } = await rebuilt(`\ufeff${joined(() => undefined)}`)
  expect(code).toBe(1)
  expect(damaged).toEqual([expect.stringContaining('byte order mark')])
  expectSameBytes(derivedFiles(vault), derivedFiles(out), 'byte order mark')
})

it('takes half a line at the end for what a crash leaves', async () => {
  const { code, damaged, out } = await rebuilt(`${joined(() => undefined)}{"recv_us":17`)
  expect({ code, damaged }).toEqual({ code: 0, damaged: [] })
  expectSameBytes(derivedFiles(vault), derivedFiles(out), 'half a line')
})
