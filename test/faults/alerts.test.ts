import { type ChildProcess, spawn } from 'node:child_process'
import { rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Listener } from '../helpers/listener.ts'
import { type LifeOptions, type Running, Stage, type StageOptions, until } from './harness.ts'

// A check that watches captures to which things happen: each is told once, and its end once.
const BIN = resolve(process.env.L3CAP_FAULT_BIN ?? 'bin/l3cap.js')
const SLOW = { timeout: 60_000 }
const ONE = [{ exchange: 'bitfinex', symbols: ['BTCUSD', 'ETHUSD'] }] as const

/** A capture, a check that watches it every second, and somebody who is told. */
class Scene {
  readonly stage: Stage
  readonly listener: Listener
  readonly capture: Running
  private readonly check: ChildProcess
  private output = ''
  private code: number | null | undefined

  constructor(stage: Stage, listener: Listener, capture: Running) {
    this.stage = stage
    this.listener = listener
    this.capture = capture
    const words = ['check', '--live', '--watch', '1s', '--vault', stage.vault]
    this.check = spawn(process.execPath, [BIN, ...words], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, L3CAP_WEBHOOK: `${listener.url}/hook`, L3CAP_HEARTBEAT: `${listener.url}/beat` }
    })
    for (const stream of [this.check.stdout, this.check.stderr])
      stream!.on('data', text => {
        this.output += String(text)
      })
    this.check.on('exit', code => {
      this.code = code
    })
  }

  /** What was told so far. */
  get told(): string[] {
    return this.listener.at('/hook').map(body => `${String(body?.event)} ${String(body?.rule)}`)
  }

  /** How many checks were made. */
  get rounds(): number {
    return this.listener.at('/beat').length
  }

  /** Waits until so many more checks were made. */
  async pass(rounds: number): Promise<void> {
    const goal = this.rounds + rounds
    await this.until(() => this.rounds >= goal)
  }

  async until(condition: () => boolean): Promise<void> {
    await until(
      () => condition() || this.code !== undefined,
      () => `told ${JSON.stringify(this.listener.at('/hook'))}\n${this.output}\n${this.capture.output.slice(-3000)}`
    )
    expect(this.code, this.output).toBe(undefined)
  }

  /** Ends the check; gives its exit code. */
  async end(): Promise<number | null | undefined> {
    this.check.kill('SIGTERM')
    await until(
      () => this.code !== undefined,
      () => `the check does not end: ${this.output}`
    )
    return this.code
  }
}

/** Opens a scene, works on it, and clears it away whatever happens. */
async function onScene(
  options: Partial<StageOptions>,
  life: (stage: Stage) => LifeOptions,
  work: (scene: Scene) => Promise<void>
): Promise<void> {
  const stage = await Stage.open({ seed: 5, kind: 'alerts', exchanges: ONE, ...options })
  const listener = await Listener.start()
  try {
    const capture = stage.start(life(stage))
    await capture.heard(6)
    const scene = new Scene(stage, listener, capture)
    try {
      await scene.pass(2)
      await work(scene)
    } finally {
      expect(await scene.end(), 'it ends with exit code 0 when it is told to').toBe(0)
    }
  } finally {
    await listener.stop()
    await stage.close()
  }
}

describe('check --live --watch', () => {
  it.concurrent('tells that a capture has died, once, and that another has taken over', SLOW, async () => {
    await onScene(
      {},
      () => ({}),
      async scene => {
        await scene.capture.kill()
        const before = scene.rounds
        await scene.until(() => scene.told.length > 0)
        expect(scene.rounds - before).toBeLessThanOrEqual(2)
        await scene.pass(4)
        expect(scene.told).toEqual(['trigger dead_capture'])
        scene.stage.start()
        await scene.until(() => scene.told.length > 1)
        await scene.pass(3)
        expect(scene.told).toEqual(['trigger dead_capture', 'resolve dead_capture'])
      }
    )
  })

  it.concurrent('tells that a disk takes nothing, once, and that it does again', SLOW, async () => {
    const full = (stage: Stage) => join(stage.folder, 'full')
    await onScene(
      {},
      stage => ({
        disk: [{ kind: 'write', path: 'raw/', whileFile: full(stage), code: 'ENOSPC' }]
      }),
      async scene => {
        writeFileSync(full(scene.stage), '')
        await scene.until(() => scene.told.length > 0)
        await scene.pass(3)
        expect(scene.told).toEqual(['trigger dead_disk'])
        rmSync(full(scene.stage))
        await scene.until(() => scene.told.length > 1)
        await scene.pass(3)
        expect(scene.told).toEqual(['trigger dead_disk', 'resolve dead_disk'])
      }
    )
  })

  it.concurrent('tells that an instrument is mute, once, and that it is heard again', SLOW, async () => {
    await onScene(
      {},
      () => ({ words: ['--stale-after', '1s'] }),
      async scene => {
        const [simulator] = scene.stage.simulators
        simulator!.inject({ kind: 'silent-ack', instrument: 'BTCUSD' })
        simulator!.inject({ kind: 'mute', instrument: 'BTCUSD', ms: 600_000 })
        await scene.until(() => scene.told.length > 0)
        await scene.until(() => scene.told.length > 1)
        await scene.pass(3)
        expect(scene.told).toEqual(['trigger mute_instrument', 'resolve mute_instrument'])
        expect(scene.listener.at('/hook')[0]!.key).toMatch(/:mute_instrument:bitfinex:BTCUSD:/)
      }
    )
  })

  it.concurrent('leaves a quiet market alone', SLOW, async () => {
    await onScene(
      { eventsPerSecond: 0.1 },
      () => ({}),
      async scene => {
        await scene.pass(10)
        expect(scene.told).toEqual([])
      }
    )
  })
})
