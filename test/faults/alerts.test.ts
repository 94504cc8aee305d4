import { type ChildProcess, spawn } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import { listHours } from '../../src/vault/layout.ts'
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
    const words = ['check', '--since', '5m', '--watch', '1s', '--vault', stage.vault]
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

describe('check --watch', () => {
  it.concurrent('tells that a line is wrong, once, and that it is right again', SLOW, async () => {
    await onScene(
      {},
      () => ({}),
      async scene => {
        expect(await scene.capture.stop()).toBe(0)
        await scene.pass(3)
        expect(scene.told).toEqual([])
        const { path } = listHours(scene.stage.vault, { feed: 'l3_spot', name: 'BTCUSD' })[0]!
        const whole = readFileSync(path, 'utf8')
        writeFileSync(path, whole.replace(/"best_bid":"\d+"/, '"best_bid":"1"'))
        await scene.until(() => scene.told.length > 0)
        await scene.pass(3)
        expect(scene.told).toEqual(['trigger wrong_best'])
        writeFileSync(path, whole)
        await scene.until(() => scene.told.length > 1)
        await scene.pass(3)
        expect(scene.told).toEqual(['trigger wrong_best', 'resolve wrong_best'])
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
