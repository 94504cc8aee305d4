import { type ChildProcess, spawn } from 'node:child_process'
import { rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
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

  private constructor(stage: Stage, listener: Listener, capture: Running) {
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

  static async open(options: Partial<StageOptions>, life: (stage: Stage) => LifeOptions): Promise<Scene> {
    const stage = await Stage.open({ seed: 5, kind: 'alerts', exchanges: ONE, ...options })
    const capture = stage.start(life(stage))
    await capture.heard(6)
    const scene = new Scene(stage, await Listener.start(), capture)
    scenes.push(scene)
    await scene.pass(2)
    return scene
  }

  /** What was told so far. */
  get told(): string[] {
    return this.listener.at('/hook').map(body => `${String(body?.event)} ${String(body?.rule)}`)
  }

  private get rounds(): number {
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
  async close(): Promise<number | null | undefined> {
    this.check.kill('SIGTERM')
    await until(
      () => this.code !== undefined,
      () => `the check does not end: ${this.output}`
    )
    await this.listener.stop()
    await this.stage.close()
    return this.code
  }
}

const scenes: Scene[] = []
afterEach(async () => {
  for (const scene of scenes.splice(0)) await scene.close()
})

describe('check --live --watch', () => {
  it('tells that a capture has died, once, and that another has taken over', SLOW, async () => {
    const scene = await Scene.open({}, () => ({}))
    await scene.capture.kill()
    await scene.until(() => scene.told.length > 0)
    await scene.pass(4)
    expect(scene.told).toEqual(['trigger dead_capture'])
    scene.stage.start()
    await scene.until(() => scene.told.length > 1)
    await scene.pass(3)
    expect(scene.told).toEqual(['trigger dead_capture', 'resolve dead_capture'])
  })

  it('tells that a disk takes nothing, once, and that it does again', SLOW, async () => {
    const full = (stage: Stage) => join(stage.folder, 'full')
    const scene = await Scene.open({}, stage => ({
      disk: [{ kind: 'write', path: 'raw/', whileFile: full(stage), code: 'ENOSPC' }]
    }))
    writeFileSync(full(scene.stage), '')
    await scene.until(() => scene.told.length > 0)
    await scene.pass(3)
    expect(scene.told).toEqual(['trigger dead_disk'])
    rmSync(full(scene.stage))
    await scene.until(() => scene.told.length > 1)
    await scene.pass(3)
    expect(scene.told).toEqual(['trigger dead_disk', 'resolve dead_disk'])
  })

  it('tells that an instrument is mute, once, and that it is heard again', SLOW, async () => {
    const scene = await Scene.open({}, () => ({ words: ['--stale-after', '1s'] }))
    const [simulator] = scene.stage.simulators
    for (let at = 0; at < 8; at++) simulator!.inject({ kind: 'silent-ack', instrument: 'BTCUSD' })
    simulator!.inject({ kind: 'mute', instrument: 'BTCUSD', ms: 600_000 })
    await scene.until(() => scene.told.length > 0)
    await scene.until(() => scene.told.length > 1)
    await scene.pass(3)
    expect(scene.told).toEqual(['trigger mute_instrument', 'resolve mute_instrument'])
    expect(scene.listener.at('/hook')[0]!.key).toMatch(/:mute_instrument:bitfinex:BTCUSD:/)
  })

  it('leaves a quiet market alone', SLOW, async () => {
    const scene = await Scene.open({ eventsPerSecond: 0.1 }, () => ({}))
    await scene.pass(10)
    expect(scene.told).toEqual([])
  })

  it('ends with exit code 0 when it is told to', SLOW, async () => {
    const scene = await Scene.open({}, () => ({}))
    scenes.length = 0
    expect(await scene.close()).toBe(0)
  })
})
