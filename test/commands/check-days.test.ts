import { execFile } from 'node:child_process'
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { type CheckOptions, runCheck } from '../../src/commands/check-run.ts'
import { coverVault } from '../../src/commands/coverage.ts'
import { HOUR_US, hourOf } from '../../src/core/time.ts'
import { dateOf } from '../../src/quality/days.ts'
import { coveragePath } from '../../src/vault/layout.ts'
import { ensureBuilt } from '../helpers/vault.ts'

const CLI = resolve('bin/l3cap.js')
const DAY_MS = 86_400_000
let folder: string
let vault: string
/** The day of the capture, and where its coverage belongs. */
let dayMs: number
let stored: string

beforeAll(async () => {
  ensureBuilt()
  folder = mkdtempSync(join(tmpdir(), 'l3cap-days-'))
  vault = join(folder, 'vault')
  const where = ['--vault', vault, '--log-dir', join(folder, 'logs')]
  await promisify(execFile)(process.execPath, [
    CLI,
    'run',
    '--simulate',
    ...where,
    '--duration',
    '2s',
    '--cadence',
    '100ms'
  ])
  const { instruments } = await coverVault(vault, {}, { nowUs: Date.now() * 1000 })
  const firstUs = instruments[0]!.hours[0]!.hour * HOUR_US
  dayMs = Math.floor(firstUs / 1000 / DAY_MS) * DAY_MS
  stored = coveragePath(vault, 'bitfinex', 'BTCUSD', dateOf(hourOf(dayMs * 1000)))
}, 60_000)
beforeEach(() => rmSync(join(vault, 'meta', 'bitfinex', 'coverage'), { recursive: true, force: true }))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** A check at a moment after the beginning of the capture's day. */
const checkAt = (afterMs: number, more: Partial<CheckOptions> = {}) =>
  runCheck({ vault, exchanges: [], names: [], deep: false, jobs: 1, nowMs: dayMs + afterMs, ...more })

it('stores the coverage of a day when it is closed, so that it outlives its files', async () => {
  await checkAt(DAY_MS + 60_000)
  expect(existsSync(stored)).toBe(false)
  await checkAt(2 * DAY_MS)
  const before = await coverVault(vault, {}, { nowUs: (dayMs + 2 * DAY_MS) * 1000 })
  const raw = join(vault, 'raw')
  rmSync(join(folder, 'gone'), { recursive: true, force: true })
  await promisify(execFile)('mv', [raw, join(folder, 'gone')])
  try {
    const after = await coverVault(vault, {}, { nowUs: (dayMs + 2 * DAY_MS) * 1000 })
    const figures = ({ instruments }: typeof before) =>
      instruments.map(({ name, hours }) => [name, hours.map(({ hour, events, trades }) => [hour, events, trades])])
    expect(figures(after)).toEqual(figures(before))
    expect(before.instruments.flatMap(({ hours }) => hours.map(each => each.stored))).not.toContain(true)
    expect(after.instruments.flatMap(({ hours }) => hours.map(each => each.stored))).not.toContain(false)
  } finally {
    await promisify(execFile)('mv', [join(folder, 'gone'), raw])
  }
})

it('stores nothing of a day that was checked in part, nor in a look at the newest minutes', async () => {
  await checkAt(2 * DAY_MS, { fromUs: (dayMs + 1000) * 1000 })
  await checkAt(2 * DAY_MS, { toUs: (dayMs + DAY_MS - 1000) * 1000 })
  await checkAt(2 * DAY_MS, { live: true })
  expect(existsSync(stored)).toBe(false)
  await checkAt(2 * DAY_MS, { fromUs: dayMs * 1000, toUs: (dayMs + DAY_MS) * 1000 })
  expect(existsSync(stored)).toBe(true)
})

it('leaves a day that is stored alone', async () => {
  await checkAt(2 * DAY_MS)
  const text = readFileSync(stored, 'utf8')
  writeFileSync(stored, `${text} `)
  await checkAt(3 * DAY_MS)
  expect(readFileSync(stored, 'utf8')).toBe(`${text} `)
})

it('finds the same where nothing can be stored', async () => {
  const first = await checkAt(2 * DAY_MS)
  rmSync(join(vault, 'meta', 'bitfinex', 'coverage'), { recursive: true })
  // A file in the place of the directory: not even root can write into it.
  writeFileSync(join(vault, 'meta', 'bitfinex', 'coverage'), '')
  chmodSync(join(vault, 'meta', 'bitfinex', 'coverage'), 0o400)
  const { findings } = await checkAt(2 * DAY_MS)
  expect(findings).toEqual(first.findings)
})
