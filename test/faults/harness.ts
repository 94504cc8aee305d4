import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { SIMULATED_CREDENTIALS, type SimulatedExchange } from '../../src/simulator/listing.ts'
import { createRandom, type Random } from '../../src/simulator/random.ts'
import { type SentFrame, type Simulator, type SimulatorOptions, startSimulator } from '../../src/simulator/simulator.ts'
import { ensureBuilt } from '../helpers/vault.ts'
import {
  compareRebuild,
  type Figures,
  judge,
  type Life,
  type SentConnection,
  type Source,
  type Verdict
} from './oracle.ts'
import { type CutMode, cutPower } from './powercut.ts'

/** The program; another build of it can be named, to see that a test fails where a protection is missing. */
const BIN = resolve(process.env.L3CAP_FAULT_BIN ?? 'bin/l3cap.js')
const SHIM = resolve('test/faults/disk.cjs')
const CLOCK = resolve('test/faults/shifted-clock.js')
const WAIT_MS = 30_000
const LOG_CHARS = 3000

/** One rule of the file system shim; see the head of disk.cjs. */
export interface DiskRule {
  kind: string
  path?: string
  from?: number
  to?: number
  afterMs?: number
  untilMs?: number
  whileFile?: string
  chance?: number
  code?: string
  short?: boolean
  shortFirst?: boolean
  stallMs?: number
  kill?: 'before' | 'after'
}

/** An exchange to simulate and capture. */
export interface StageExchange {
  readonly exchange: SimulatedExchange
  readonly symbols: readonly string[]
  readonly options?: Partial<SimulatorOptions>
  /** More keys of its entry in the configuration. */
  readonly entry?: Record<string, unknown>
}

/** The usual pair: order by order with one numbering per connection, and levels with one per instrument. */
export const USUAL: readonly StageExchange[] = [
  { exchange: 'bitfinex', symbols: ['BTCUSD', 'ETHUSD'] },
  { exchange: 'okx', symbols: ['BTC-USDT-SWAP', 'ETH-USDT-SWAP'], options: { okxChecksums: true } }
]

/** What a test wants. */
export interface StageOptions {
  /** Everything that is random follows from it; it is said in every failure. */
  readonly seed: number
  /** What kind of run it is, as `npm run faults -- --only` names it. */
  readonly kind: string
  readonly exchanges?: readonly StageExchange[]
  readonly eventsPerSecond?: number
  /** @default 200ms */
  readonly cadence?: string
}

/** How one life is started. */
export interface LifeOptions {
  /** More words of the command line. */
  readonly words?: readonly string[]
  readonly env?: Record<string, string>
  readonly disk?: readonly DiskRule[]
  /** Keep the journal that `cutPower` needs. */
  readonly journal?: boolean
  /** Milliseconds that its wall clock is ahead. */
  readonly clockShiftMs?: number
  /** How old its loss may be at its death, where its disk is stalled or full. */
  readonly lossMsMax?: number
}

/** Milliseconds since the epoch as the simulators count them: a stepped wall clock does not matter. */
export function nowMs(): number {
  return Math.floor(performance.timeOrigin + performance.now())
}

/** Resolves when the condition holds; rejects with `about` after a generous time. */
export async function until(condition: () => boolean, about: () => string, ms = WAIT_MS): Promise<void> {
  const endMs = performance.now() + ms
  while (!condition()) {
    if (performance.now() > endMs) throw new Error(`not within ${ms} ms: ${about()}`)
    await new Promise(done => setTimeout(done, 15))
  }
}

/** Lets time pass in which things shall happen. Never to wait for something: `until` is for that. */
export function live(ms: number): Promise<void> {
  return new Promise(done => setTimeout(done, ms))
}

/** What a simulated exchange sent, connection by connection. */
class Sent implements Source {
  readonly exchange: string
  readonly connections: SentConnection[] = []
  private readonly byNumber = new Map<number, SentConnection>()
  private readonly counts = new Map<number, number>()

  constructor(exchange: string) {
    this.exchange = exchange
  }

  note(frame: SentFrame): void {
    const life = Number(new URLSearchParams(frame.query).get('life'))
    let connection = this.byNumber.get(frame.connection)
    if (connection === undefined) {
      connection = { number: frame.connection, life, frames: [] }
      this.byNumber.set(frame.connection, connection)
      this.connections.push(connection)
    }
    connection.frames.push(frame)
    if (frame.sent) this.counts.set(life, this.count(life) + 1)
  }

  /** Frames sent to a life so far. */
  count(life: number): number {
    return this.counts.get(life) ?? 0
  }
}

/** A process that captures, and what is known of it. */
export class Running {
  readonly life: Life
  readonly child: ChildProcess
  readonly folder: string
  /** What it wrote to stderr and stdout so far. */
  output = ''
  code: number | null = null
  signal: NodeJS.Signals | null = null
  hasExited = false
  private readonly stage: Stage
  private readonly exited: Promise<void>

  constructor(stage: Stage, life: Life, child: ChildProcess, folder: string) {
    this.stage = stage
    this.life = life
    this.child = child
    this.folder = folder
    child.stderr?.on('data', text => this.hear(text))
    child.stdout?.on('data', text => this.hear(text))
    this.exited = new Promise(done => {
      child.on('exit', (code, signal) => {
        this.code = code
        this.signal = signal
        this.hasExited = true
        if (this.life.end === 'running') {
          this.life.end = code === 0 ? 'clean' : 'killed'
          this.life.endedMs = nowMs()
        }
        done()
      })
    })
  }

  private hear(text: unknown): void {
    this.output = (this.output + String(text)).slice(-200_000)
  }

  get pid(): number {
    return this.child.pid!
  }

  /** Waits until every exchange has sent so many frames to this life. */
  async heard(frames = 40, ms = WAIT_MS): Promise<void> {
    await until(
      () => this.hasExited || this.stage.sources.every(source => source.count(this.life.number) >= frames),
      () => this.stage.about(`life ${this.life.number} heard too little: ${this.output.slice(-LOG_CHARS)}`),
      ms
    )
  }

  /** Waits for its end; fails when it does not come. */
  async exit(ms = WAIT_MS): Promise<number | null> {
    await until(
      () => this.hasExited,
      () => this.stage.about(`life ${this.life.number} does not end: ${this.output.slice(-LOG_CHARS)}`),
      ms
    )
    await this.exited
    return this.code
  }

  /** Ends it at once, as a crash does. */
  async kill(): Promise<void> {
    if (!this.hasExited) {
      this.life.endedMs = nowMs()
      this.life.end = 'killed'
      this.child.kill('SIGKILL')
    }
    await this.exit()
  }

  /** Kills it and leaves on the disk what a power cut would have left. The life must keep a journal. */
  async cut(random: Random, mode: CutMode): Promise<void> {
    await this.kill()
    this.life.end = 'power'
    cutPower(join(this.folder, 'journal'), join(this.folder, 'graveyard'), random, mode)
  }

  /** Ends it by a signal and waits for its end. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    this.child.kill(signal)
    return await this.exit()
  }
}

/** Simulated exchanges in this process, a vault, and the lives of the program that writes it. */
export class Stage {
  readonly folder: string
  readonly vault: string
  readonly random: Random
  readonly lives: Life[] = []
  readonly sources: Sent[] = []
  readonly simulators: Simulator[] = []
  private readonly options: StageOptions
  private readonly runnings: Running[] = []
  private rebuilds = 0

  private constructor(options: StageOptions) {
    this.options = options
    this.folder = mkdtempSync(join(tmpdir(), 'l3cap-faults-'))
    this.vault = join(this.folder, 'vault')
    this.random = createRandom(options.seed)
  }

  /** Starts the simulators. */
  static async open(options: StageOptions): Promise<Stage> {
    ensureBuilt()
    const stage = new Stage(options)
    for (const { exchange, symbols, options: more } of stage.exchanges) {
      const sent = new Sent(exchange)
      stage.sources.push(sent)
      const simulator = await startSimulator({
        exchange,
        seed: options.seed,
        instruments: [...symbols],
        eventsPerSecond: options.eventsPerSecond ?? 50,
        connectsPerMinute: 0,
        connectsPerSecond: 0,
        connectsPerTenMinutes: 0,
        onFrame: frame => sent.note(frame),
        ...more
      })
      stage.simulators.push(simulator)
    }
    return stage
  }

  private get exchanges(): readonly StageExchange[] {
    return this.options.exchanges ?? USUAL
  }

  /** A message with what it takes to repeat the run. */
  about(text: string): string {
    const { seed, kind } = this.options
    return `${text} (seed ${seed}: npm run faults -- --seed ${seed} --runs 1 --only ${kind})`
  }

  /** Writes the configuration of a life, whose number is in the address of every socket. */
  private configure(folder: string, life: number): string {
    const exchanges = this.exchanges.map(({ exchange, symbols, entry }, at) => {
      const { wsUrl, restUrl } = this.simulators[at]!
      return { exchange, symbols, wsUrl: `${wsUrl}?life=${life}`, restUrl, ...entry }
    })
    const path = join(folder, 'config.json')
    writeFileSync(path, JSON.stringify({ exchanges, cadence: this.options.cadence ?? '200ms' }))
    return path
  }

  /** Starts the next life on the vault. */
  start(options: LifeOptions = {}): Running {
    const number = this.lives.length + 1
    const folder = join(this.folder, `life-${number}`)
    mkdirSync(join(folder, 'graveyard'), { recursive: true })
    const { lossMsMax, clockShiftMs } = options
    const life: Life = { number, end: 'running', startedMs: nowMs(), endedMs: Number.NaN }
    if (lossMsMax !== undefined) life.lossMsMax = lossMsMax
    if (clockShiftMs !== undefined) life.clockShiftMs = clockShiftMs
    this.lives.push(life)
    const words = ['run', '--config', this.configure(folder, number), '--vault', this.vault]
    const child = this.spawn(
      [...words, '--log-dir', join(this.folder, 'logs'), ...(options.words ?? [])],
      folder,
      options
    )
    const running = new Running(this, life, child, folder)
    this.runnings.push(running)
    return running
  }

  /** Runs another command of the program on the vault to its end. `folder` gets the counts of its calls. */
  async command(
    words: readonly string[],
    options: LifeOptions = {}
  ): Promise<{ code: number | null; signal: NodeJS.Signals | null; output: string; counts: Record<string, number> }> {
    const folder = mkdtempSync(join(this.folder, 'command-'))
    mkdirSync(join(folder, 'graveyard'))
    const child = this.spawn(words, folder, { disk: [], ...options })
    let output = ''
    child.stdout?.on('data', text => (output += String(text)))
    child.stderr?.on('data', text => (output += String(text)))
    const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>(done =>
      child.on('close', (...end) => done(end))
    )
    return { code, signal, output, counts: countsIn(folder) }
  }

  private spawn(words: readonly string[], folder: string, options: LifeOptions): ChildProcess {
    const { disk, journal, clockShiftMs, env } = options
    const preload: string[] = []
    const extra: Record<string, string> = {}
    if (disk || journal) {
      preload.push(`--require ${SHIM}`)
      extra.FAULT_DISK = JSON.stringify({
        root: this.vault,
        seed: this.options.seed,
        rules: disk ?? [],
        counts: join(folder, 'counts.json'),
        ...(journal ? { journal: join(folder, 'journal'), graveyard: join(folder, 'graveyard') } : {})
      })
    }
    if (clockShiftMs !== undefined) {
      preload.push(`--import ${CLOCK}`)
      extra.CLOCK_SHIFT_MS = String(clockShiftMs)
    }
    const { key, secret, passphrase } = SIMULATED_CREDENTIALS
    const { NODE_OPTIONS, ...inherited } = process.env
    return spawn(process.execPath, [BIN, ...words], {
      cwd: this.folder,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        ...inherited,
        COINBASE_API_KEY: key,
        COINBASE_API_SECRET: secret,
        COINBASE_API_PASSPHRASE: passphrase,
        KRAKEN_API_KEY: key,
        KRAKEN_API_SECRET: secret,
        ...(preload.length > 0 ? { NODE_OPTIONS: preload.join(' ') } : {}),
        ...extra,
        ...env
      }
    })
  }

  /** What is wrong with the vault; every finding says how to repeat the run. With `rebuild`, derived feeds are compared too. */
  judge(rebuild = false): Verdict {
    const { findings, figures } = judge(this.vault, this.lives, this.sources)
    if (rebuild && existsSync(join(this.vault, 'raw'))) {
      const out = join(this.folder, `rebuilt-${++this.rebuilds}`)
      execFileSync(process.execPath, [BIN, 'rebuild', '--vault', this.vault, '--out', out, '--jobs', '1'])
      findings.push(...compareRebuild(this.vault, out, this.lives))
    }
    report(this.options.kind, figures, findings.length, this.lives.filter(({ end }) => end !== 'clean').length)
    return { findings: findings.map(text => this.about(text)), figures }
  }

  /** Ends all that was started and removes the folder; L3CAP_FAULT_KEEP=1 leaves it where it is. */
  async close(): Promise<void> {
    for (const running of this.runnings) if (!running.hasExited) await running.kill()
    for (const simulator of this.simulators) await simulator.close()
    if (process.env.L3CAP_FAULT_KEEP) console.log(`kept ${this.folder}`)
    else rmSync(this.folder, { recursive: true, force: true })
  }
}

/** Opens a stage, works on it, and clears it away whatever happens. */
export async function onStage(options: StageOptions, work: (stage: Stage) => Promise<void>): Promise<void> {
  const stage = await Stage.open(options)
  try {
    await work(stage)
  } finally {
    await stage.close()
  }
}

/** How many calls of each kind a process made below its vault, as the shim wrote them at its exit. */
export function countsIn(folder: string): Record<string, number> {
  const path = join(folder, 'counts.json')
  return existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as Record<string, number>) : {}
}

/** Adds the figures of one run to those that `npm run faults` prints at its end. */
export function report(kind: string, figures: Figures, findings: number, deaths: number): void {
  const path = process.env.L3CAP_FAULT_REPORT
  if (path) appendFileSync(path, `${JSON.stringify({ kind, ...figures, findings, deaths })}\n`)
}

/** The numbers that the environment sets for a kind of run, with what the short form has. */
export function wishes(kind: string, short: { seed: number; runs: number }): { seeds: number[]; isLong: boolean } {
  const only = process.env.L3CAP_FAULT_ONLY?.split(',')
  const isMine = only === undefined || only.includes(kind)
  const seed = Number(process.env.L3CAP_FAULT_SEED ?? short.seed)
  const runs = isMine ? Number(process.env.L3CAP_FAULT_RUNS ?? short.runs) : 0
  return {
    seeds: Array.from({ length: runs }, (_, at) => seed + at),
    isLong: process.env.L3CAP_FAULT_LONG === '1'
  }
}
