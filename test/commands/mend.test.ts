import { execFile } from 'node:child_process'
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative, resolve } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { MendReport } from '../../src/commands/mend.ts'
import { ensureBuilt } from '../helpers/vault.ts'

const CLI = resolve('bin/l3cap.js')
let folder: string
let vault: string
/** Every file of the vault's feeds, by its path below `raw`. */
let clean: Map<string, string>
let copies = 0

function l3cap(...given: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise(done => {
    execFile(process.execPath, [CLI, ...given], { timeout: 60_000 }, (error, stdout, stderr) => {
      done({ code: typeof error?.code === 'number' ? error.code : error ? -1 : 0, stdout, stderr })
    })
  })
}

function filesOf(root: string): Map<string, string> {
  const raw = join(root, 'raw')
  const found = new Map<string, string>()
  for (const entry of readdirSync(raw, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const path = join(entry.parentPath, entry.name)
    found.set(relative(raw, path), readFileSync(path, 'latin1'))
  }
  return found
}

/** The first file of a feed, by its path below `raw`. */
function fileOf(feed: string): string {
  const path = [...clean.keys()].find(each => each.split('/')[1] === feed)
  expect(path, feed).toBeDefined()
  return path!
}

beforeAll(async () => {
  ensureBuilt()
  folder = mkdtempSync(join(tmpdir(), 'l3cap-mend-'))
  vault = join(folder, 'vault')
  const where = ['--vault', vault, '--log-dir', join(folder, 'logs')]
  const run = await l3cap('run', '--simulate', ...where, '--duration', '3s', '--cadence', '100ms')
  expect(run.code, run.stderr).toBe(0)
  clean = filesOf(vault)
}, 60_000)
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Mends a copy of the vault that was spoilt. */
async function mended(spoil: (raw: string) => void, ...given: string[]) {
  const copy = join(folder, `copy-${++copies}`)
  cpSync(vault, copy, { recursive: true })
  spoil(join(copy, 'raw'))
  const before = filesOf(copy)
  const out = `${copy}-mended`
  const done = await l3cap('repair', '--vault', copy, '--out', out, '--json', ...given)
  expect(filesOf(copy)).toEqual(before)
  return { ...done, report: JSON.parse(done.stdout) as MendReport, out }
}

/** Changes the middle line of a file. */
function change(path: string, spoil: (line: string) => string): void {
  const lines = readFileSync(path, 'utf8').split('\n')
  const middle = Math.floor(lines.length / 2)
  const spoilt = spoil(lines[middle]!)
  expect(spoilt).not.toBe(lines[middle])
  lines[middle] = spoilt
  writeFileSync(path, lines.join('\n'))
}

it('makes again what is damaged, from the frames, and takes everything else over', async () => {
  const [events, shots, trades] = [fileOf('l3_events'), fileOf('l3_spot'), fileOf('trades')]
  const { code, report, stderr, out } = await mended(raw => {
    change(join(raw, events), line => line.replace(/"price":"\d/, '"price":"9'))
    change(join(raw, shots), () => '{"timestamp_utc":"20')
    rmSync(join(raw, trades))
  })
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  expect(report.kept).toEqual([])
  expect(report.mended.map(file => file.replace(/^raw\//, '')).sort()).toEqual([events, shots, trades].sort())
  expect(report.copied).toBe(clean.size - 3)
  expect(filesOf(out)).toEqual(clean)
  const again = await l3cap('check', '--vault', out, '--deep')
  expect(again.code, again.stdout).toBe(0)
})

it('mends a compressed hour that was cut off', async () => {
  const events = fileOf('l3_events')
  const { code, report, out } = await mended(raw => {
    const packed = gzipSync(clean.get(events)!)
    writeFileSync(join(raw, `${events}.gz`), packed.subarray(0, packed.length - 100))
    rmSync(join(raw, events))
  })
  expect(code).toBe(0)
  expect(report.mended).toEqual([`raw/${events}`])
  expect(filesOf(out)).toEqual(clean)
})

it('keeps what no frames can mend as it is, and says why', async () => {
  const [frames, events, status] = [fileOf('frames'), fileOf('l3_events'), fileOf('status')]
  const { code, report, stderr, out } = await mended(raw => {
    change(join(raw, frames), () => '')
    change(join(raw, events), () => 'nothing')
    change(join(raw, status), () => 'nothing')
  })
  expect(code).toBe(1)
  expect(report.mended).toEqual([])
  expect(Object.fromEntries(report.kept.map(({ file, why }) => [file, why]))).toEqual({
    [`raw/${frames}`]: 'nothing else tells what came over the wire',
    [`raw/${events}`]: 'frames of this hour are damaged, too',
    [`raw/${status}`]: 'no frame tells what happened to the capture'
  })
  for (const { file } of report.kept) expect(stderr).toContain(file)
  expect(filesOf(out)).toEqual(filesOf(join(folder, `copy-${copies}`)))
})

it('does not replace records by fewer of them, as where frames were not kept all the time', async () => {
  const part = join(folder, 'part')
  const where = ['--vault', part, '--log-dir', join(folder, 'logs'), '--cadence', '100ms']
  for (const more of [
    ['--no-frames', '--duration', '2s'],
    ['--duration', '1s']
  ]) {
    const run = await l3cap('run', '--simulate', ...where, ...more)
    expect(run.code, run.stderr).toBe(0)
  }
  const events = [...filesOf(part).keys()].find(path => path.includes('/l3_events/'))!
  change(join(part, 'raw', events), () => 'nothing')
  const out = `${part}-mended`
  const { code, stdout } = await l3cap('repair', '--vault', part, '--out', out, '--json')
  expect(code).toBe(1)
  const { kept, mended } = JSON.parse(stdout) as MendReport
  expect(mended).toEqual([])
  expect(kept.map(({ file }) => file)).toEqual([`raw/${events}`])
  expect(kept[0]!.why).toMatch(/^its frames give \d+ records, and it has \d+/)
  expect(filesOf(out)).toEqual(filesOf(part))
})

it('writes into no vault that is there, and not over the one it mends', async () => {
  const done = await l3cap('repair', '--vault', vault, '--out', vault)
  expect(done.code).toBe(2)
  expect(done.stderr).toContain('holds feeds already')
  for (const command of ['repair', 'rebuild']) {
    const inside = await l3cap(command, '--vault', vault, '--out', join(vault, 'raw', 'deep'))
    expect(inside.code).toBe(2)
    expect(inside.stderr).toContain('lies among the files of the vault')
  }
  expect(filesOf(vault)).toEqual(clean)
})
