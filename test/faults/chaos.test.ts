import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { type FaultKind, randomFaults } from '../../src/simulator/simulator.ts'
import { type DiskRule, live, onStage, type Running, type Stage, USUAL, wishes } from './harness.ts'

const FAULTS: readonly FaultKind[] = [
  'drop',
  'duplicate',
  'reorder',
  'corrupt-checksum',
  'mute',
  'close',
  'restart-notice',
  'silent-ack',
  'drop-trade'
]

/** Faults on the wire for some milliseconds from now on. */
function troubleWire(stage: Stage, ms: number): void {
  for (const [at, simulator] of stage.simulators.entries()) {
    const count = stage.random.integer(6)
    const seed = stage.random.integer(1_000_000)
    for (const fault of randomFaults(seed, count, ms, USUAL[at]!.symbols, FAULTS)) simulator.inject(fault)
  }
}

/** What the disk does in a life: nothing, one failing call, short writes, or a window of refusals or delays. */
function pickRules(stage: Stage, flag: string): DiskRule[] {
  const { random } = stage
  const at = 1 + random.integer(120)
  const code = random.pick(['EIO', 'ENOSPC', 'EROFS', 'EACCES', 'EMFILE'])
  return random.pick<DiskRule[]>([
    [],
    [{ kind: 'any', path: 'raw/', from: at, to: at + random.integer(3), code }],
    [{ kind: 'write', short: true, chance: 0.5 }],
    [{ kind: 'write', path: 'raw/', shortFirst: true, code: 'ENOSPC', whileFile: flag }],
    [{ kind: 'any', path: 'raw/', code, whileFile: flag }],
    [{ kind: 'write', path: 'raw/', stallMs: 300 + random.integer(1200), whileFile: flag }],
    [{ kind: 'sync', path: 'raw/', code: 'EIO', chance: 0.1 }],
    [{ kind: 'any', path: 'raw/', from: at * 3, kill: random.pick(['before', 'after']) }]
  ])
}

/** Ends a life in one of the ways that there are. */
async function end(stage: Stage, running: Running, hasJournal: boolean): Promise<void> {
  const { random } = stage
  if (running.hasExited) return
  const way = random.integer(hasJournal ? 4 : 3)
  if (way === 0) await running.stop(random.pick(['SIGTERM', 'SIGINT'] as const))
  else if (way === 3) await running.cut(random, random.pick(['strict', 'mixed']))
  else await running.kill()
}

/** One life with trouble of every sort. */
async function liveOnce(stage: Stage): Promise<void> {
  const { random } = stage
  const flag = join(stage.folder, `trouble-${stage.lives.length}`)
  const journal = random.next() < 0.3
  const disk = pickRules(stage, flag)
  // Behind a disk that refuses or waits, everything since then is still in memory.
  const running = stage.start({ disk, journal, ...(disk.length > 0 ? { lossMsMax: 15_000 } : {}) })
  troubleWire(stage, 3000)
  await running.heard(40)
  await live(200 + random.integer(900))
  writeFileSync(flag, '')
  await live(random.integer(1500))
  if (random.next() < 0.5) rmSync(flag)
  if (random.next() < 0.3 && !running.hasExited) {
    process.kill(running.pid, 'SIGSTOP')
    await live(random.integer(1000))
    process.kill(running.pid, 'SIGCONT')
  }
  await live(random.integer(1200))
  await end(stage, running, journal)
}

describe('everything at once', () => {
  const { seeds } = wishes('chaos', { seed: 101, runs: 3 })
  if (seeds.length === 0) test('is not asked for', () => undefined)
  for (const seed of seeds) {
    test.concurrent(`nothing is lost or wrong in silence (seed ${seed})`, { timeout: 180_000 }, () =>
      onStage({ seed, kind: 'chaos', eventsPerSecond: 80 }, async stage => {
        for (let lives = 1 + stage.random.integer(3); lives > 0; lives--) await liveOnce(stage)
        const last = stage.start()
        await last.heard(60)
        expect(await last.stop(), stage.about(last.output.slice(-2000))).toBe(0)
        const { findings, figures } = stage.judge(true)
        expect(findings).toEqual([])
        expect(figures.frames, stage.about('frames')).toBeGreaterThan(0)
      })
    )
  }
})
