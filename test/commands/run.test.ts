import { execFile, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, it } from 'vitest'

const PROJECT = fileURLToPath(new URL('../../', import.meta.url))
const CLI = join(PROJECT, 'bin/l3cap.js')
let folder: string

/** Runs the built program to its end. */
function l3cap(...given: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise(resolve => {
    execFile(process.execPath, [CLI, ...given], { cwd: folder, timeout: 30_000 }, (error, stdout, stderr) => {
      resolve({ code: typeof error?.code === 'number' ? error.code : error ? -1 : 0, stdout, stderr })
    })
  })
}

/** Content by path below `raw`, without the feeds that do not come from frames. */
function derived(vault: string): Record<string, string> {
  const raw = join(vault, 'raw')
  const files = readdirSync(raw, { recursive: true, withFileTypes: true }).filter(entry => entry.isFile())
  return Object.fromEntries(
    files
      .map(entry => join(entry.parentPath, entry.name))
      .map((path): [string, string] => [relative(raw, path).replaceAll('\\', '/'), readFileSync(path, 'utf8')])
      .filter(([path]) => !/^[^/]+\/(frames|status)\//.test(path))
      .sort()
  )
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'l3cap-run-'))
  if (existsSync(join(PROJECT, 'dist/cli.js'))) return
  const built = spawnSync('npm', ['run', 'build'], { cwd: PROJECT, shell: process.platform === 'win32' })
  expect(built.status).toBe(0)
}, 60_000)
afterAll(() => rmSync(folder, { recursive: true, force: true }))

it('a capture of two simulated exchanges is rebuilt to the byte, by one thread or two', async () => {
  const vault = join(folder, 'vault')
  const config = {
    simulate: true,
    logDir: join(folder, 'logs'),
    cadence: '200ms',
    exchanges: [
      { exchange: 'bitfinex', symbols: ['BTCUSD', 'BTC/USDT'] },
      { exchange: 'okx', symbols: ['BTC-USDT', 'ETH-USDT-SWAP'] }
    ]
  }
  writeFileSync(join(folder, 'l3cap.json'), JSON.stringify(config))
  const run = await l3cap('run', '--config', join(folder, 'l3cap.json'), '--vault', vault, '--duration', '2500ms')
  expect(run.code, run.stderr).toBe(0)
  const captured = derived(vault)
  const feeds = new Set(Object.keys(captured).map(path => path.split('/').slice(0, 3).join('/')))
  for (const feed of ['bitfinex/l3_events/BTCUSD', 'bitfinex/l3_spot/BTCUSD', 'okx/l2_perps/ETH-USDT-SWAP'])
    expect([...feeds]).toContain(feed)
  expect(feeds.has('okx/l2_updates/BTC-USDT')).toBe(true)

  for (const jobs of ['1', '2']) {
    const out = join(folder, `rebuilt-${jobs}`)
    const rebuilt = await l3cap('rebuild', '--vault', vault, '--out', out, '--jobs', jobs, '--json')
    expect(rebuilt.code, rebuilt.stderr).toBe(0)
    expect(JSON.parse(rebuilt.stdout)).toMatchObject({ unused: 0 })
    const again = derived(out)
    expect(Object.keys(again)).toEqual(Object.keys(captured))
    for (const [path, text] of Object.entries(captured)) expect(again[path] === text, path).toBe(true)
    const refused = await l3cap('rebuild', '--vault', vault, '--out', out)
    expect(refused.code).toBe(2)
  }
  // Snapshots stand on the cadence, a slot each.
  const shots = Object.entries(captured).filter(([path]) => path.includes('/l3_spot/BTCUSD/'))
  const slots = shots
    .flatMap(([, text]) => text.trimEnd().split('\n'))
    .map(line => Math.floor((JSON.parse(line) as { recv_us: number }).recv_us / 200_000))
  expect(slots.length).toBeGreaterThan(4)
  expect(new Set(slots).size).toBe(slots.length)
}, 60_000)

it('tells every mistake of a configuration at once, and starts nothing', async () => {
  const vault = join(folder, 'nothing')
  const given = ['run', '--vault', vault, '--exchange', 'mtgox', '--symbol', 'BTCUSD', '--depth', '0', '--cadence', 'x']
  const { code, stderr } = await l3cap(...given)
  expect(code).toBe(2)
  for (const word of ['mtgox', 'depth', 'cadence']) expect(stderr).toContain(word)
  expect(existsSync(vault)).toBe(false)
})
