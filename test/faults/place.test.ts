import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { recordsOf } from '../helpers/vault.ts'
import { live, type Running, Stage, until } from './harness.ts'

// A vault that goes away while it is written: its directory is renamed or removed, its disk unmounted.
let stage: Stage
const mounts: string[] = []
afterEach(async () => {
  for (const mount of mounts.splice(0)) execFileSync('umount', ['-l', mount])
  await stage.close()
})

const canMount = (() => {
  const there = join(import.meta.dirname, '../../node_modules')
  try {
    execFileSync('mount', ['--bind', there, there], { stdio: 'ignore' })
    execFileSync('umount', ['-l', there], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
})()

const events = (name: string) =>
  recordsOf(stage.vault, 'bitfinex', 'status', 'BTCUSD').filter(row => row.event === name)

/** Takes the vault away for a while and looks that nothing is written in its place. */
async function whileAway(running: Running, leave: () => void, comeBack: () => void): Promise<void> {
  await running.heard(300)
  leave()
  await until(
    () => running.output.includes('Writing paused'),
    () => stage.about(`not paused: ${running.output.slice(-2000)}`)
  )
  await live(1500)
  expect(existsSync(stage.vault) ? readdirSync(stage.vault) : []).toEqual([])
  comeBack()
  await until(
    () => running.output.includes('Writing resumed'),
    () => stage.about(`not resumed: ${running.output.slice(-2000)}`)
  )
  await live(500)
  expect(await running.stop()).toBe(0)
  const verdict = stage.judge()
  expect(verdict.findings).toEqual([])
  expect(verdict.figures.skipped + verdict.figures.lost).toBe(0)
  expect(events('writer_paused').map(row => JSON.stringify(row.detail))).toEqual([
    expect.stringContaining('the vault is gone')
  ])
  expect(events('writer_resumed')).toHaveLength(1)
}

test('a vault that is renamed pauses the capture and nothing is lost when it is back', {
  timeout: 60_000
}, async () => {
  stage = await Stage.open({ seed: 11, kind: 'place' })
  const away = `${stage.vault}-away`
  await whileAway(
    stage.start(),
    () => renameSync(stage.vault, away),
    () => renameSync(away, stage.vault)
  )
})

test.skipIf(!canMount)(
  'a vault whose disk is unmounted is not written into the bare mount point',
  { timeout: 60_000 },
  async () => {
    stage = await Stage.open({ seed: 12, kind: 'place' })
    const disk = join(stage.folder, 'disk')
    mkdirSync(disk)
    mkdirSync(stage.vault)
    const mount = () => {
      execFileSync('mount', ['--bind', disk, stage.vault])
      mounts.push(stage.vault)
    }
    const unmount = () => execFileSync('umount', ['-l', mounts.pop()!])
    mount()
    await whileAway(stage.start(), unmount, mount)
    // And at a start: there was a vault here.
    unmount()
    const refused = stage.start()
    expect(await refused.exit()).toBe(1)
    expect(refused.output).toMatch(/Is its disk mounted\?/)
    expect(readdirSync(stage.vault)).toEqual([])
    mount()
    const again = stage.start()
    await again.heard()
    expect(await again.stop()).toBe(0)
  }
)

test('a vault that is removed is not begun anew but by --create', { timeout: 60_000 }, async () => {
  stage = await Stage.open({ seed: 13, kind: 'place' })
  const running = stage.start()
  await running.heard()
  rmSync(stage.vault, { recursive: true })
  await until(
    () => running.output.includes('Writing paused'),
    () => stage.about(`not paused: ${running.output.slice(-2000)}`)
  )
  expect(existsSync(stage.vault)).toBe(false)
  await running.kill()
  const refused = stage.start()
  expect(await refused.exit()).toBe(1)
  expect(refused.output).toMatch(/--create begins a new one/)
  expect(existsSync(stage.vault)).toBe(false)
  const created = stage.start({ words: ['--create'] })
  await created.heard(300)
  expect(await created.stop()).toBe(0)
  expect(events('started')).toHaveLength(1)
})

test('hour files that are removed are begun anew, with new connections and whole books', {
  timeout: 60_000
}, async () => {
  stage = await Stage.open({ seed: 14, kind: 'place' })
  const running = stage.start()
  await running.heard(300)
  rmSync(join(stage.vault, 'raw'), { recursive: true })
  await until(
    () => running.output.includes('Stored lines have disappeared'),
    () => stage.about(`not told: ${running.output.slice(-2000)}`)
  )
  const fresh = () => (existsSync(join(stage.vault, 'raw')) ? events('synced') : [])
  await until(
    () => fresh().length > 0,
    () => stage.about('not synced again')
  )
  await live(1000)
  expect(await running.stop()).toBe(0)
  // Each connection that has a frames file now can be rebuilt from it.
  const out = join(stage.folder, 'rebuilt')
  const { output } = await stage.command(['rebuild', '--vault', stage.vault, '--out', out])
  expect(output).toMatch(/\d+ lines|frames/)
})
