import { execFile } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { coverVault } from '../../src/commands/coverage.ts'
import { loadDays, storeCoverage } from '../../src/commands/coverage-days.ts'
import { csvOf, describe as describeReport, stripOf } from '../../src/commands/coverage-text.ts'
import { HOUR_US, hourOf } from '../../src/core/time.ts'
import type { CoverageReport, HourCoverage, InstrumentCoverage } from '../../src/quality/coverage.ts'
import { splitDays } from '../../src/quality/days.ts'
import { coveragePath, listHours } from '../../src/vault/layout.ts'
import { nowMs, Stage, until } from '../faults/harness.ts'
import type { Row } from '../helpers/driver.ts'
import { recordsOf } from '../helpers/vault.ts'

// One vault, made by the program in four lives: faults in the first, which is killed twenty minutes before midnight; the
// second begins after midnight and is stopped; the third comes two hours later, is killed, and followed by a fourth.
const CLI = resolve('bin/l3cap.js')
const CADENCE_US = 500_000
const DAY = '2026-03-01'
let stage: Stage
let vault: string
let report: CoverageReport
let btc: InstrumentCoverage
let statuses: Row[]
let copies = 0

/** How far the clock of a life is ahead, that begins at a time of the day after `DAY`. */
const shiftTo = (hour: number, minute: number) => Date.UTC(2026, 2, 2, hour, minute) - nowMs()
/** When the vault is looked at. */
const NOW_US = Date.UTC(2026, 2, 2, 3) * 1000

function recordsUs(feed: string): number[] {
  return recordsOf(vault, 'bitfinex', feed, 'BTCUSD').map(({ recv_us }) => recv_us as number)
}

/** Waits until status holds so many records of an event. */
async function told(event: string, count: number): Promise<void> {
  const found = () => recordsOf(vault, 'bitfinex', 'status', 'BTCUSD').filter(row => row.event === event)
  await until(
    () => found().length >= count,
    () => stage.about(`${found().length} of ${count} ${event}`)
  )
}

/** Waits for so many more snapshots. */
async function lived(snapshots: number): Promise<void> {
  const count = recordsUs('l3_spot').length + snapshots
  await until(
    () => recordsUs('l3_spot').length >= count,
    () => stage.about('no snapshots')
  )
}

/** The gaps but for those that a busy machine makes: snapshots that nobody took in time. */
const known = ({ gaps }: InstrumentCoverage) => gaps.filter(({ cause }) => cause !== 'unexplained')

function l3cap(...words: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise(done => {
    execFile(process.execPath, [CLI, 'coverage', ...words], { timeout: 30_000 }, (error, stdout, stderr) =>
      done({ code: typeof error?.code === 'number' ? error.code : error ? -1 : 0, stdout, stderr })
    )
  })
}

function copy(): string {
  const path = join(stage.folder, `copy-${++copies}`)
  cpSync(vault, path, { recursive: true })
  return path
}

const cover = (of: string, range = {}) => coverVault(of, {}, { nowUs: NOW_US, ...range })
const named = (of: CoverageReport, name: string) => of.instruments.find(each => each.name === name)!

beforeAll(async () => {
  const exchanges = [{ exchange: 'bitfinex' as const, symbols: ['BTCUSD', 'ETHUSD'] }]
  stage = await Stage.open({ seed: 11, kind: 'coverage', exchanges, cadence: '500ms' })
  vault = stage.vault
  const [simulator] = stage.simulators
  const first = stage.start({ clockShiftMs: shiftTo(0, -20) })
  await told('synced', 1)
  await lived(2)
  simulator!.inject({ kind: 'drop', instrument: 'BTCUSD' })
  await told('gap', 1)
  await lived(1)
  simulator!.inject({ kind: 'close' })
  await told('gap', 2)
  await lived(1)
  await first.kill()
  const second = stage.start({ clockShiftMs: shiftTo(0, 10) })
  await told('synced', 4)
  await lived(2)
  await second.stop()
  const third = stage.start({ clockShiftMs: shiftTo(2, 10) })
  await told('synced', 5)
  await lived(2)
  await third.kill()
  const fourth = stage.start({ clockShiftMs: shiftTo(2, 20) })
  await told('synced', 6)
  await lived(2)
  await fourth.stop()
  report = await cover(vault)
  btc = named(report, 'BTCUSD')
  statuses = recordsOf(vault, 'bitfinex', 'status', 'BTCUSD')
}, 90_000)

afterAll(() => stage.close())

describe('the report', () => {
  it('has the gaps that status tells, no other, to the microsecond', () => {
    expect(report.problems).toEqual([])
    expect(report.instruments.map(({ name }) => name)).toEqual(['BTCUSD', 'ETHUSD'])
    const gaps = statuses.filter(({ event, detail }) => event === 'gap' && !('channel' in (detail as object)))
    const told = gaps.map(({ recv_us, detail }) => [(detail as { cause: string }).cause, recv_us])
    const found = known(btc).filter(({ cause }) => !['killed', 'stopped'].includes(cause))
    expect(found.map(({ cause, fromUs }) => [cause, fromUs])).toEqual(told)
    expect(told.map(([cause]) => cause)).toEqual(['sequence', 'disconnect'])
    for (const { toUs } of found)
      expect(statuses).toContainEqual(expect.objectContaining({ event: 'synced', recv_us: toUs }))
  })

  it('has the kills from the last record on, and the stop, each up to the next book', () => {
    const startedUs = statuses.filter(({ event }) => event === 'started').map(row => row.recv_us as number)
    const written = [...recordsUs('l3_events'), ...recordsUs('l3_spot'), ...recordsUs('status')]
    const lastBefore = (us: number) => Math.max(...written.filter(each => each < us))
    const syncedAfter = (us: number) =>
      statuses.find(({ event, recv_us }) => event === 'synced' && (recv_us as number) > us)?.recv_us
    const stoppedUs = statuses.find(({ event }) => event === 'stopped')?.recv_us
    const found = known(btc).slice(-3)
    expect(found.map(({ cause, fromUs, toUs }) => ({ cause, fromUs, toUs }))).toEqual([
      { cause: 'killed', fromUs: lastBefore(startedUs[1]!), toUs: syncedAfter(startedUs[1]!) },
      { cause: 'stopped', fromUs: stoppedUs, toUs: syncedAfter(startedUs[2]!) },
      { cause: 'killed', fromUs: lastBefore(startedUs[3]!), toUs: syncedAfter(startedUs[3]!) }
    ])
  })

  it('has an hour for each from the first to the last, and judges them', () => {
    expect(btc.hours.map(({ hour, verdict }) => [hour - btc.hours[0]!.hour, verdict])).toEqual([
      [0, 'degraded'],
      [1, 'degraded'],
      [2, 'missing'],
      [3, 'degraded']
    ])
    expect(btc.days.map(({ date, degraded, missing }) => [date, degraded, missing])).toEqual([
      [DAY, 1, 0],
      ['2026-03-02', 2, 1]
    ])
    // Bitfinex numbers connections: what one instrument misses is a gap of both.
    const causes = ['sequence', 'disconnect', 'killed', 'stopped', 'killed']
    for (const each of report.instruments) expect(known(each).map(({ cause }) => cause)).toEqual(causes)
  })

  it('counts what is there', () => {
    expect(btc.total.events).toBe(recordsUs('l3_events').length)
    expect(btc.total.trades).toBe(recordsUs('trades').length)
    expect(btc.total.frames).toBe(recordsOf(vault, 'bitfinex', 'frames', 'bitfinex-1').length)
    const files = listHours(vault, { name: 'BTCUSD' }).filter(({ kind }) => kind === 'jsonl')
    expect(btc.total.bytes).toBe(files.reduce((sum, { path }) => sum + readFileSync(path).length, 0))
    expect(btc.hours.every(({ cadenceMs }) => cadenceMs === CADENCE_US / 1000)).toBe(true)
    for (const hour of btc.hours.filter(({ verdict }) => verdict !== 'missing')) {
      const inHour = recordsOf(vault, 'bitfinex', 'l3_spot', 'BTCUSD').filter(
        ({ recv_us, gap_detected }) => hourOf(recv_us as number) === hour.hour && gap_detected === false
      )
      const slots = new Set(inHour.map(({ recv_us }) => Math.floor((recv_us as number) / CADENCE_US)))
      // The first may lie before the first slot that was due.
      expect([slots.size, slots.size - 1]).toContain(hour.slots.present)
    }
  })

  it('is the same of compressed hours', async () => {
    const packed = copy()
    for (const { path } of listHours(packed)) {
      writeFileSync(`${path}.gz`, gzipSync(readFileSync(path)))
      rmSync(path)
    }
    expect((await cover(packed)).instruments).toEqual(report.instruments)
  })

  it('counts once what stands there compressed and plain', async () => {
    const doubled = copy()
    for (const { path } of listHours(doubled)) writeFileSync(`${path}.gz`, gzipSync(readFileSync(path)))
    expect((await cover(doubled)).instruments).toEqual(report.instruments)
  })

  it('of a range has its hours alone, and knows the state at its begin', async () => {
    const fromUs = btc.hours[1]!.hour * HOUR_US
    const part = named(await cover(vault, { fromUs, toUs: fromUs + HOUR_US }), 'BTCUSD')
    expect(part.hours).toEqual([btc.hours[1]])
    const touching = btc.gaps.filter(gap => gap.fromUs < fromUs + HOUR_US && gap.toUs! > fromUs)
    expect(part.gaps.map(({ cause, toUs }) => [cause, toUs])).toEqual(touching.map(({ cause, toUs }) => [cause, toUs]))
    // When the killed process wrote its last line is not in what was read.
    expect(part.gaps[0]).toMatchObject({
      cause: 'killed',
      fromUs,
      lengthMs: Math.round((touching[0]!.toUs! - fromUs) / 1000)
    })
  })

  it('names hours of a time that cannot be right, instead of all hours up to them', async () => {
    const copy = join(stage.folder, 'clocks')
    const write = (path: string, text: string) => {
      mkdirSync(join(path, '..'), { recursive: true })
      writeFileSync(path, text)
    }
    cpSync(vault, copy, { recursive: true })
    for (const date of ['1970-01-01', '2101-12-31'])
      write(join(copy, 'raw', 'bitfinex', 'l3_events', 'BTCUSD', date, '23.jsonl'), '{}\n')
    const [day] = splitDays(btc)
    const hour = hourOf(Date.UTC(2101, 0, 1) * 1000)
    const far = { ...day!, date: '2101-01-01', hours: [{ ...day!.hours[0]!, hour }], gaps: [] }
    write(coveragePath(copy, 'bitfinex', 'BTCUSD', far.date), JSON.stringify(far))
    const { instruments, problems } = await coverVault(copy, {}, { nowUs: NOW_US })
    rmSync(copy, { recursive: true })
    expect(instruments.find(({ name }) => name === 'BTCUSD')).toEqual(btc)
    expect(problems).toEqual([expect.stringMatching(/^raw\/.*1970-01-01\/23\.jsonl: .* left out$/)])
  })

  it('names what cannot be read, and has the rest', async () => {
    const broken = copy()
    const [file] = listHours(broken, { feed: 'trades', name: 'ETHUSD' })
    rmSync(file!.path)
    writeFileSync(`${file!.path}.gz`, 'no gzip')
    const rest = await cover(broken)
    expect(rest.problems).toEqual([expect.stringContaining('raw/bitfinex/trades/ETHUSD/2026-03-01/23.jsonl.gz: ')])
    expect(named(rest, 'BTCUSD')).toEqual(btc)
    const { code, stdout, stderr } = await l3cap('--vault', broken, '--json')
    expect(code).toBe(1)
    expect((JSON.parse(stdout) as CoverageReport).instruments.length).toBe(2)
    expect(stderr).toContain('trades/ETHUSD/2026-03-01/23.jsonl.gz')
  })
})

describe('stored days', () => {
  it('outlive their files, and nothing else is known of them', async () => {
    const kept = copy()
    expect(storeCoverage(kept, report, NOW_US)).toEqual({ written: 2, problems: [] })
    // The second of March is not over.
    expect(existsSync(coveragePath(kept, 'bitfinex', 'BTCUSD', '2026-03-02'))).toBe(false)
    const withFiles = await cover(kept)
    expect(withFiles.instruments).toEqual(report.instruments)
    for (const { path } of listHours(kept)) if (path.includes(DAY)) rmSync(path)
    const without = await cover(kept)
    const [first, ...others] = named(without, 'BTCUSD').hours
    expect(first).toEqual({ ...btc.hours[0], stored: true })
    expect(others.map(({ hour, stored }) => [hour, stored])).toEqual(
      btc.hours.slice(1).map(({ hour }) => [hour, false])
    )
    expect(named(without, 'BTCUSD').gaps).toEqual(btc.gaps)
    expect(describeReport(without, { hours: false, colours: false })).toMatch(new RegExp(`${DAY} {25}[▒▓] \\*`))
  })

  it('that were looked at one by one have the kill over midnight as one', async () => {
    const kept = copy()
    const midnightUs = Date.UTC(2026, 2, 2) * 1000
    for (const range of [{ toUs: midnightUs }, { fromUs: midnightUs }])
      storeCoverage(kept, await cover(vault, range), NOW_US + 48 * HOUR_US)
    for (const { path } of listHours(kept)) rmSync(path)
    expect(named(await cover(kept), 'BTCUSD').gaps).toEqual(btc.gaps)
  })

  it('of an instrument that has no file left are found', async () => {
    const kept = copy()
    storeCoverage(kept, report, NOW_US + 48 * HOUR_US)
    rmSync(join(kept, 'raw'), { recursive: true })
    mkdirSync(join(kept, 'raw'))
    const without = await cover(kept)
    expect(without.instruments.map(({ total }) => total)).toEqual(report.instruments.map(({ total }) => total))
    expect(without.instruments.every(({ hours }) => hours.every(({ stored }) => stored))).toBe(true)
  })

  it('are not replaced by what is left of them', async () => {
    const kept = copy()
    storeCoverage(kept, report, NOW_US)
    const path = coveragePath(kept, 'bitfinex', 'BTCUSD', DAY)
    const full = readFileSync(path, 'utf8')
    const poor = copy()
    for (const { path: gone } of listHours(poor, { feed: 'l3_events' })) rmSync(gone)
    expect(storeCoverage(kept, await cover(poor), NOW_US)).toEqual({ written: 0, problems: [] })
    expect(readFileSync(path, 'utf8')).toBe(full)
  })

  it('that are damaged are told, passed over and replaced', async () => {
    const kept = copy()
    const path = coveragePath(kept, 'bitfinex', 'BTCUSD', DAY)
    storeCoverage(kept, report, NOW_US)
    writeFileSync(path, '{"v":1,')
    const told = await cover(kept)
    expect(told.problems).toEqual([`meta/bitfinex/coverage/BTCUSD/${DAY}.json: it is no JSON`])
    expect(named(told, 'BTCUSD')).toEqual(btc)
    storeCoverage(kept, told, NOW_US)
    expect(loadDays(kept, 'bitfinex', 'BTCUSD', () => expect.fail()).length).toBe(1)
  })
})

describe('what is printed', () => {
  /** Reads RFC 4180, quotes and all. */
  function parseCsv(text: string): string[][] {
    const rows = text.split('\r\n')
    expect(rows.pop()).toBe('')
    return rows.map(row =>
      [...row.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^",]*))/g)].map(m => m[1]?.replaceAll('""', '"') ?? m[2]!)
    )
  }

  it('as CSV has one row for each hour', () => {
    const odd = { ...btc, instId: 'a "b", c' }
    const [header, ...rows] = parseCsv(csvOf({ ...report, instruments: [btc, odd] }))
    expect(rows.length).toBe(2 * btc.hours.length)
    expect(new Set(rows.map(row => row.length))).toEqual(new Set([header!.length]))
    const cell = (row: number, name: string) => rows[row]![header!.indexOf(name)]
    const hours = ['01T23', '02T00', '02T01', '02T02'].map(text => `2026-03-${text}:00:00.000Z`)
    expect(hours.map((_, row) => cell(row, 'hour_utc'))).toEqual(hours)
    expect(cell(0, 'slots_present')).toBe(String(btc.hours[0]!.slots.present))
    expect(cell(rows.length - 1, 'instId')).toBe('a "b", c')
    expect(cell(0, 'stored')).toBe('false')
  })

  it('as CSV is no program, neither for a spreadsheet nor for a terminal', () => {
    for (const instId of ['=1+1', '+1', '-1', '@SUM(A1)', '\t=1', '=a,"b"', 'x\u001b[2J']) {
      const [header, row] = parseCsv(csvOf({ ...report, instruments: [{ ...btc, instId }] }))
      expect(row![header!.indexOf('instId')]).toBe(instId.startsWith('x') ? 'x\\u001b[2J' : `'${instId}`)
    }
  })

  it('for people has room for any number of gaps', () => {
    const gaps = Array.from({ length: 200_000 }, () => btc.gaps[0]!)
    const text = describeReport({ ...report, instruments: [{ ...btc, gaps }] }, { hours: false, colours: false })
    expect(text.split('\n').length).toBeGreaterThan(200_000)
  })

  it('as a strip has one cell for each hour', () => {
    const hour = btc.hours[0]!
    const at = (number: number, verdict: HourCoverage['verdict'], share = 1): HourCoverage => ({
      ...hour,
      hour: number,
      verdict,
      slots: { ...hour.slots, share }
    })
    const start = Math.floor(hour.hour / 24) * 24
    const hours = [at(start + 1, 'complete'), at(start + 2, 'degraded', 0.95), at(start + 3, 'degraded', 0.2)]
    const strip = stripOf([...hours, at(start + 23, 'missing'), at(start + 24, 'complete')], false)
    expect(strip).toEqual([
      '              0     6     12    18',
      `  ${DAY}   █▓▒                   ·`,
      '  2026-03-02  █'
    ])
    const coloured = stripOf(hours, true)
    // biome-ignore lint/suspicious/noControlCharactersInRegex: colours are what this is about
    expect(coloured[1]!.replace(/\u001b\[\d+m/g, '')).toBe(`  ${DAY}   █▓▒`)
    expect(coloured[1]).toContain('\u001b[32m█\u001b[0m')
  })

  it('for people has every gap with its cause, and cannot move the cursor', () => {
    const text = describeReport(report, { hours: true, colours: false })
    for (const { cause } of btc.gaps) expect(text).toMatch(new RegExp(`2026-03-0\\d .*${cause}`))
    expect(text).toContain('bitfinex BTCUSD  2026-03-01 23:4')
    const odd = { ...btc, instId: 'x\u001b[2Jy\nz', gaps: [{ ...btc.gaps[0]!, cause: 'a\u001b]0;b\nc' }] }
    const shown = describeReport({ ...report, instruments: [odd] }, { hours: false, colours: false })
    expect(shown).toContain('x\\u001b[2Jy?z')
    expect(shown).not.toContain('\u001b')
  })

  it('never calls whole what lacks one snapshot', () => {
    const slots = { expected: 100_000, present: 99_999, share: 0.99999 }
    const shown = describeReport(
      { ...report, instruments: [{ ...btc, total: { ...btc.total, slots } }] },
      { hours: false, colours: false }
    )
    expect(shown).toContain('99999/100000 (99.99%)')
  })
})

describe('the command', () => {
  it('prints the report in the form asked for', async () => {
    const json = JSON.parse((await l3cap('--vault', vault, '--json', '--symbol', 'btc/usd')).stdout) as CoverageReport
    expect(json.instruments).toEqual([btc])
    expect((await l3cap('--vault', vault, '--csv')).stdout).toBe(csvOf(report))
    const text = await l3cap('--vault', vault)
    expect(text).toEqual({ code: 0, stderr: '', stdout: describeReport(report, { hours: false, colours: false }) })
  })

  it('takes a range', async () => {
    const words = ['--vault', vault, '--json', '--from', '2026-03-02T00:10', '--to', '2026-03-02T00:20']
    const { instruments, fromUs, toUs } = JSON.parse((await l3cap(...words)).stdout) as CoverageReport
    expect([fromUs, toUs]).toEqual([btc.hours[1]!.hour * HOUR_US, (btc.hours[1]!.hour + 1) * HOUR_US])
    expect(instruments.map(({ hours }) => hours.length)).toEqual([1, 1])
  })

  it('refuses what makes no sense, all at once', async () => {
    const { code, stderr } = await l3cap(
      '--vault',
      vault,
      '--from',
      'yesterday',
      '--to',
      '2026-02-30',
      '--symbol',
      'DOGE'
    )
    expect(code).toBe(2)
    expect(stderr).toMatch(/--from must be a time[\s\S]*--to must be a time[\s\S]*--symbol DOGE/)
    expect((await l3cap('--vault', join(stage.folder, 'none'))).code).toBe(2)
    expect((await l3cap('--vault', vault, '--json', '--csv')).code).toBe(2)
    expect((await l3cap('--vault', vault, '--from', '2026-03-02', '--to', '2026-03-01')).code).toBe(2)
  })
})
