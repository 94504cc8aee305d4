import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { countsIn, type DiskRule, live, onStage, type Running, type Stage, until, wishes } from './harness.ts'
import { hourFiles } from './oracle.ts'

const TIMEOUT = { timeout: 180_000 }
const KINDS = ['open', 'write', 'fsync', 'fdatasync', 'rename', 'unlink', 'mkdir', 'link', 'close'] as const
/** Lives on one vault: what the fault of one has spoilt would trouble the next. */
const LIVES_PER_VAULT = 4

/** How many calls of each kind a short capture makes. */
async function countCalls(stage: Stage): Promise<Record<string, number>> {
  const running = stage.start({ disk: [] })
  await running.heard(60)
  await live(1200)
  expect(await running.stop(), stage.about(running.output.slice(-2000))).toBe(0)
  return countsIn(running.folder)
}

/** A life with a fault: it goes on by itself, or it ends with exit 1 and says why. */
async function liveThrough(stage: Stage, rule: DiskRule): Promise<void> {
  const about = JSON.stringify(rule)
  const running = stage.start({ disk: [rule] })
  await running.heard(60)
  if (!running.hasExited) await live(500)
  const code = running.hasExited ? running.code : await running.stop()
  if (code === 0) return
  expect(code, stage.about(`${about}: ${running.output}`)).toBe(1)
  expect(running.output, stage.about(about)).toMatch(/l3cap: .*EIO/s)
}

/** The last life without a fault; then the vault must be right. */
async function settle(stage: Stage, about = ''): Promise<void> {
  const last = stage.start()
  await last.heard(60)
  expect(await last.stop(), stage.about(`${about} ${last.output.slice(-2000)}`)).toBe(0)
  expect(stage.judge(true).findings, about).toEqual([])
}

describe('one call of the file system fails', () => {
  const { seeds, isLong } = wishes('calls', { seed: 71, runs: 1 })
  if (seeds.length === 0) test('is not asked for', () => undefined)
  for (const seed of seeds) {
    const vaults = isLong ? 1 : 2
    for (let vault = 0; vault < vaults; vault++) {
      test.concurrent(`and the capture gets over it (seed ${seed}, vault ${vault})`, { timeout: 7_200_000 }, () =>
        onStage({ seed: seed + vault * 1000, kind: 'calls' }, async stage => {
          const counts = await countCalls(stage)
          const rules: DiskRule[] = KINDS.flatMap(kind =>
            Array.from({ length: counts[kind] ?? 0 }, (_, at) => ({ kind, from: at + 1, to: at + 1, code: 'EIO' }))
          )
          expect(rules.length).toBeGreaterThan(100)
          const chosen = isLong ? rules : Array.from({ length: LIVES_PER_VAULT }, () => pickRule(stage, counts))
          for (const rule of chosen) await liveThrough(stage, rule)
          await settle(stage, JSON.stringify(chosen.slice(0, 20)))
        })
      )
    }
  }
})

/** A call of any kind, each kind as likely, early ones more. */
function pickRule(stage: Stage, counts: Record<string, number>): DiskRule {
  const { random } = stage
  const kind = random.pick(KINDS.filter(each => (counts[each] ?? 0) > 0))
  const from = 1 + Math.floor(random.next() ** 2 * counts[kind]!)
  return { kind, from, to: from, code: 'EIO' }
}

/** How often an event stands in the status of an instrument. */
function countOf(stage: Stage, event: string): number {
  const text = hourFiles(stage.vault, 'okx', 'status', 'BTC-USDT-SWAP').map(path => readFileSync(path, 'utf8'))
  return text.join('').split(`"event":"${event}"`).length - 1
}

/** Waits until frames were sent to a life after this moment, and written. */
async function goOn(stage: Stage, running: Running): Promise<void> {
  const before = stage.sources.map(source => source.count(running.life.number))
  await until(
    () =>
      running.hasExited || stage.sources.every((source, at) => source.count(running.life.number) > before[at]! + 20),
    () => stage.about('frames after the fault')
  )
}

interface Trouble {
  readonly name: string
  rules(whileFile: string): DiskRule[]
  readonly pauses: boolean
  readonly shortMs: number
  readonly longMs: number
}

const everywhere = (whileFile: string, code: string, kinds: readonly string[]): DiskRule[] =>
  kinds.map(kind => ({ kind, code, whileFile }))

/** What goes wrong for a while and then is over. */
const TROUBLES: readonly Trouble[] = [
  {
    name: 'a full disk, which takes a part of a line first',
    rules: whileFile => [
      { kind: 'write', shortFirst: true, code: 'ENOSPC', whileFile },
      ...everywhere(whileFile, 'ENOSPC', ['open', 'mkdir', 'link'])
    ],
    pauses: true,
    shortMs: 1500,
    longMs: 20_000
  },
  {
    name: 'a disk that is read-only for a while',
    rules: whileFile => everywhere(whileFile, 'EROFS', ['open', 'write', 'mkdir', 'link', 'rename', 'unlink']),
    pauses: true,
    shortMs: 1500,
    longMs: 20_000
  },
  {
    name: 'a disk that fails to sync for a while',
    rules: whileFile => everywhere(whileFile, 'EIO', ['fsync', 'fdatasync']),
    pauses: true,
    shortMs: 2500,
    longMs: 20_000
  },
  {
    name: 'a disk that answers after seconds',
    rules: whileFile => [
      { kind: 'write', path: 'raw/', stallMs: 3000, whileFile },
      { kind: 'sync', path: 'raw/', stallMs: 3000, whileFile }
    ],
    pauses: true,
    shortMs: 1000,
    longMs: 20_000
  },
  {
    name: 'writes that take a part only',
    rules: whileFile => [{ kind: 'write', short: true, chance: 0.7, whileFile }],
    pauses: false,
    shortMs: 1500,
    longMs: 20_000
  }
]

describe('trouble with the disk that passes', () => {
  const { seeds, isLong } = wishes('calls', { seed: 81, runs: 1 })
  for (const seed of seeds) {
    for (const { name, rules, pauses, shortMs, longMs } of TROUBLES) {
      test.concurrent(`${name}: nothing is lost (seed ${seed})`, TIMEOUT, () =>
        onStage({ seed, kind: 'calls' }, async stage => {
          const flag = join(stage.folder, 'trouble')
          const running = stage.start({ disk: rules(flag) })
          await running.heard(60)
          writeFileSync(flag, '')
          await live(isLong ? longMs : shortMs)
          rmSync(flag)
          await goOn(stage, running)
          if (pauses) {
            await until(
              () => countOf(stage, 'writer_resumed') > 0,
              () => stage.about(`no writer_resumed: ${running.output.slice(-2000)}`)
            )
          }
          expect(await running.stop(), stage.about(running.output.slice(-2000))).toBe(0)
          const { findings, figures } = stage.judge(true)
          expect(findings).toEqual([])
          expect(figures.skipped, stage.about('what fits into memory is not skipped')).toBe(0)
        })
      )
    }
  }
})

/** Whether this process may mount a file system of its own; only the superuser of a Linux may. */
function mounts(folder: string): boolean {
  try {
    mkdirSync(folder, { recursive: true })
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=3m', 'l3cap-test', folder], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

describe('a small disk', () => {
  const { seeds } = wishes('calls', { seed: 91, runs: 1 })
  for (const seed of seeds) {
    test.concurrent(`that is full and then has room again loses nothing (seed ${seed})`, TIMEOUT, context =>
      onStage({ seed, kind: 'calls' }, async stage => {
        if (!mounts(stage.vault)) return context.skip()
        try {
          const running = stage.start()
          await running.heard(60)
          const ballast = join(stage.vault, 'ballast')
          fill(ballast)
          await until(
            () => /Writing paused/.test(running.output),
            () => stage.about(`no pause: ${running.output.slice(-2000)}`)
          )
          await live(500)
          rmSync(ballast)
          await goOn(stage, running)
          expect(await running.stop(), stage.about(running.output.slice(-2000))).toBe(0)
          expect(countOf(stage, 'writer_paused'), stage.about('writer_paused')).toBeGreaterThan(0)
          expect(stage.judge(true).findings).toEqual([])
        } finally {
          execFileSync('umount', [stage.vault])
        }
      })
    )
  }
})

/** Writes until the disk takes no more. */
function fill(path: string): void {
  for (const size of [65_536, 1024, 1]) {
    try {
      for (;;) writeFileSync(path, Buffer.alloc(size), { flag: 'a' })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
    }
  }
}
