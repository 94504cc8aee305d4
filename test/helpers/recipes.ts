import { spawn, spawnSync } from 'node:child_process'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { SIMULATED_CREDENTIALS } from '../../src/simulator/listing.ts'
import { type Simulator, startSimulator } from '../../src/simulator/simulator.ts'
import { until } from '../faults/harness.ts'
import type { Row } from './driver.ts'
import { ensureBuilt } from './vault.ts'

const BIN = resolve('bin/l3cap.js')
const CLOCK = resolve('test/faults/shifted-clock.js')
const DUCKDB = resolve('test/helpers/duckdb.js')
/** How long before the hour a capture begins, loses something, and how long after it ends. */
const BEFORE_MS = 6000
const LOSS_MS = 2500
const AFTER_MS = 4500

/** The code of a recipe in README.md: the block behind its marker. Throws when there is none. */
export function recipeOf(name: string): string {
  const readme = readFileSync('README.md', 'utf8')
  const match = new RegExp(`<!-- recipe: ${name} -->\\n\`\`\`\\w+\\n([\\s\\S]*?)\`\`\`\\n`).exec(readme)
  if (match === null) throw new Error(`README.md has no recipe ${name}`)
  return match[1]!
}

/** The commands of a recipe by the first word of the comment above each. */
export function commandsOf(recipe: string): Map<string, string> {
  const parts = recipe.split(/^# /m).slice(1)
  return new Map(parts.map(part => [/^\w+(?: \w+)?/.exec(part)![0], `# ${part}`]))
}

/** The lines of a stream in a vault, hour after hour, parsed. */
export function rowsOf(vault: string, exchange: string, feed: string, name: string): Row[] {
  const folder = join(vault, 'raw', exchange, feed, name)
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter(path => /\.jsonl(?:\.gz)?$/.test(path))
    .sort()
    .flatMap(path => {
      const bytes = readFileSync(join(folder, path))
      const text = path.endsWith('.gz') ? gunzipSync(bytes).toString() : bytes.toString()
      return text.split('\n').filter(Boolean)
    })
    .map(line => JSON.parse(line) as Row)
}

/** Runs the program in the folder of a vault, so much later than the vault began; its standard output. */
export type Later = (ms: number, ...words: string[]) => string

/**
 * Captures `BTC-USD` of Coinbase (L3) and `BTC-USDT-SWAP` of OKX (L2) into `vault` in the folder, from some seconds
 * before an hour until some after it, with a lost update of each. The exchanges live in that time too.
 */
export async function captureDated(folder: string, hourMs: number): Promise<Later> {
  ensureBuilt()
  const shiftMs = hourMs - BEFORE_MS - Date.now()
  const origin = performance.timeOrigin
  Object.defineProperty(performance, 'timeOrigin', { value: origin + shiftMs, configurable: true })
  const simulators: Simulator[] = []
  const { key, secret, passphrase } = SIMULATED_CREDENTIALS
  const envOf = (ms: number) => ({
    ...process.env,
    NODE_OPTIONS: `--import ${CLOCK}`,
    CLOCK_SHIFT_MS: String(shiftMs + ms),
    COINBASE_API_KEY: key,
    COINBASE_API_SECRET: secret,
    COINBASE_API_PASSPHRASE: passphrase
  })
  try {
    for (const exchange of ['coinbase', 'okx'] as const)
      simulators.push(await startSimulator({ exchange, seed: 7, eventsPerSecond: 120 }))
    const exchanges = [
      { exchange: 'coinbase', symbols: ['BTC-USD'] },
      { exchange: 'okx', symbols: ['BTC-USDT-SWAP'] }
    ].map((entry, at) => ({ ...entry, wsUrl: simulators[at]!.wsUrl, restUrl: simulators[at]!.restUrl }))
    writeFileSync(join(folder, 'config.json'), JSON.stringify({ exchanges, cadence: '1s' }))
    const words = [BIN, 'run', '--config', 'config.json', '--vault', 'vault', '--log-dir', 'logs']
    const child = spawn(process.execPath, words, { cwd: folder, env: envOf(0), stdio: 'ignore' })
    const ended = new Promise(done => child.on('exit', done))
    try {
      await until(
        () => Date.now() + shiftMs > hourMs - LOSS_MS,
        () => 'no time passes'
      )
      for (const simulator of simulators) simulator.inject({ kind: 'drop' })
      await until(
        () => Date.now() + shiftMs > hourMs + AFTER_MS,
        () => 'no time passes'
      )
      child.kill('SIGTERM')
      const code = await ended
      if (code !== 0) throw new Error(`the capture ended with ${String(code)}`)
    } finally {
      child.kill('SIGKILL')
    }
  } finally {
    for (const simulator of simulators) await simulator.close()
    Object.defineProperty(performance, 'timeOrigin', { value: origin, configurable: true })
  }
  return (ms, ...words) => outputOf(process.execPath, [BIN, ...words], { cwd: folder, env: envOf(ms) })
}

/** What a command prints; throws, with what it complained of, when it fails. */
export function outputOf(
  command: string,
  words: readonly string[],
  options: { cwd: string; env?: NodeJS.ProcessEnv; input?: string }
): string {
  const { status, stdout, stderr, error } = spawnSync(command, words, { encoding: 'utf8', ...options })
  if (status !== 0) throw new Error(`${command} ended with ${status}: ${stderr}`, { cause: error })
  return stdout
}

/** The rows of each statement of a text of SQL; numbers and decimals are text. */
export function queryDuckdb(sql: string, cwd: string): Row[][] {
  const lines = outputOf(process.execPath, [DUCKDB], { cwd, input: sql }).trim().split('\n')
  return lines.map(line => JSON.parse(line) as Row[])
}

/** The first of these commands that works with these words; undefined when none does. */
export function findCommand(commands: readonly string[], ...words: string[]): string | undefined {
  return commands.find(command => spawnSync(command, words, { stdio: 'ignore' }).status === 0)
}
