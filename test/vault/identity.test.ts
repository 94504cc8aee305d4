import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { VaultIdentity } from '../../src/vault/identity.ts'

const NOW = '2026-11-20T10:00:00.000Z'
let folder: string
let vault: string
let memory: string
const open = (create = false) => VaultIdentity.open(vault, { memory, create, nowIso: NOW })
const idOf = () => (JSON.parse(readFileSync(join(vault, 'meta/vault.json'), 'utf8')) as { id: string }).id

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'l3cap-identity-'))
  vault = join(folder, 'disk', 'vault')
  memory = join(folder, 'logs', 'vaults.json')
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

it('a new vault gets an id that it keeps, in directories for its owner and group alone', async () => {
  await open().check()
  const id = idOf()
  expect(id).toMatch(/^[0-9a-f-]{36}$/)
  open()
  expect(idOf()).toBe(id)
  expect(statSync(vault).mode & 0o027).toBe(0)
  expect(JSON.parse(readFileSync(memory, 'utf8'))).toEqual({ [vault]: NOW })
})

it('a vault of an older version, or with a damaged marker, gets an id', () => {
  mkdirSync(join(vault, 'raw'), { recursive: true })
  mkdirSync(join(folder, 'logs'))
  writeFileSync(memory, JSON.stringify({ [vault]: NOW }))
  open()
  expect(idOf()).toMatch(/^[0-9a-f-]{36}$/)
  for (const damage of ['', '\0\0\0', '{"id":', '{"id":5}', '[]', 'null']) {
    writeFileSync(join(vault, 'meta/vault.json'), damage)
    open()
    expect(idOf()).toMatch(/^[0-9a-f-]{36}$/)
  }
})

it.each(['is not there', 'is empty', 'stands on a disk that is not there'])(
  'a vault that was written before and %s is refused, and nothing is made, until it is to be begun anew',
  what => {
    open()
    rmSync(what.includes('disk') ? join(folder, 'disk') : vault, { recursive: true })
    if (what === 'is empty') mkdirSync(vault)
    expect(() => open()).toThrow(/has been written since 2026-11-20T10:00:00.000Z.*Is its disk mounted\? --create/)
    expect(existsSync(join(vault, 'meta'))).toBe(false)
    open(true)
    expect(idOf()).toMatch(/^[0-9a-f-]{36}$/)
    open()
  }
)

it('a damaged memory is an empty one', () => {
  open()
  rmSync(vault, { recursive: true })
  for (const damage of ['', '\0', '[1', 'null', '7']) {
    writeFileSync(memory, damage)
    open()
    rmSync(vault, { recursive: true })
  }
})

it('a vault that goes away is noticed, and known again when it comes back somewhere else', async () => {
  const identity = open()
  renameSync(vault, `${vault}-unmounted`)
  await expect(identity.check()).rejects.toThrow('ENOENT')
  // The bare mount point.
  mkdirSync(vault)
  await expect(identity.check()).rejects.toThrow('ENOENT')
  mkdirSync(join(vault, 'meta'))
  writeFileSync(join(vault, 'meta/vault.json'), '{"id":"another"}')
  await expect(identity.check()).rejects.toThrow('another vault')
  rmSync(vault, { recursive: true })
  renameSync(`${vault}-unmounted`, vault)
  await identity.check()
  await identity.check()
})

it('a disk that does not answer is asked once, however many want to know', async () => {
  const identity = open()
  const first = identity.check()
  expect(identity.check()).toBe(first)
  await first
  renameSync(vault, `${vault}-unmounted`)
  await expect(identity.check()).rejects.toThrow('ENOENT')
})
