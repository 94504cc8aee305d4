import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { lastLine, readLines } from '../../src/vault/reader.ts'

const MIB = 1024 * 1024
let folder: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'l3cap-reader-'))
})
afterEach(() => rmSync(folder, { recursive: true }))

function put(name: string, content: string | Buffer): string {
  const path = join(folder, name)
  writeFileSync(path, content)
  return path
}

async function read(path: string): Promise<{ lines: string[]; tail: string | undefined }> {
  const lines: string[] = []
  let tail: string | undefined
  for await (const batch of readLines(path, { onTail: text => (tail = text) })) {
    for (const line of batch) lines.push(line)
  }
  return { lines, tail }
}

const READINGS: [string, string[], string | undefined][] = [
  ['', [], undefined],
  ['half', [], 'half'],
  ['\n', [''], undefined],
  ['a\n', ['a'], undefined],
  ['a\nb\nhalf €', ['a', 'b'], 'half €'],
  ['a\r\n\nb\n', ['a\r', '', 'b'], undefined],
  ['\ufeffa\n', ['\ufeffa'], undefined]
]

test.each(READINGS)('%j plain and compressed', async (content, lines, tail) => {
  expect(await read(put('a.jsonl', content))).toEqual({ lines, tail })
  expect(await read(put('a.jsonl.gz', gzipSync(content)))).toEqual({ lines, tail })
})

test('characters that the border between two chunks cuts are read right', async () => {
  for (const cut of [1, 2, 3]) {
    const lines = [`${'a'.repeat(MIB - cut)}😀é€`, 'x', '😀'.repeat(MIB), 'last ü']
    const content = `${lines.join('\n')}\n`
    expect((await read(put('a.jsonl', content))).lines).toEqual(lines)
    expect((await read(put('a.jsonl.gz', gzipSync(content)))).lines).toEqual(lines)
  }
})

test('large files come in batches, whole and in order', async () => {
  const hash = createHash('sha256')
  const content = Array.from({ length: 200_000 }, (_, i) => `{"frame":${i},"text":"${'é'.repeat(i % 40)}"}\n`).join('')
  let batches = 0
  for await (const batch of readLines(put('a.jsonl.gz', gzipSync(content)))) {
    batches += 1
    hash.update(batch.map(line => `${line}\n`).join(''))
  }
  expect(hash.digest('hex')).toBe(createHash('sha256').update(content).digest('hex'))
  expect(batches).toBeGreaterThan(5)
})

test('all members of a gzip file are read', async () => {
  const path = put('a.jsonl.gz', Buffer.concat([gzipSync('a\nb'), gzipSync(''), gzipSync('c\nd\n')]))
  expect(await read(path)).toEqual({ lines: ['a', 'bc', 'd'], tail: undefined })
})

test('a gzip file cut off anywhere is found', async () => {
  const whole = gzipSync('{"a":1}\n{"b":2}\n')
  for (let length = 0; length < whole.length; length += 1) {
    const path = put('a.jsonl.gz', whole.subarray(0, length))
    await expect(read(path), `${length} bytes`).rejects.toMatchObject({ code: 'VAULT_DAMAGED' })
  }
})

test('broken gzip data, and anything behind it, is found', async () => {
  const whole = gzipSync('{"a":1}\n{"b":2}\n')
  const flipped = Buffer.from(whole)
  flipped[14]! ^= 0xff
  const contents = [flipped, Buffer.concat([whole, Buffer.alloc(20)]), Buffer.concat([whole, Buffer.from('{"c":3}\n')])]
  for (const content of [...contents, Buffer.from('{"a":1}\n')]) {
    const path = put('a.jsonl.gz', content)
    await expect(read(path)).rejects.toMatchObject({ code: 'VAULT_DAMAGED', message: expect.stringContaining(path) })
  }
})

test('a file that cannot be opened is trouble of the vault, not damage', async () => {
  for (const name of ['none.jsonl', 'none.jsonl.gz']) {
    await expect(read(join(folder, name))).rejects.toMatchObject({ code: 'VAULT' })
  }
})

test('a reader that stops early closes the file', async () => {
  const path = put('a.jsonl.gz', gzipSync('a\n'.repeat(3 * MIB)))
  for await (const batch of readLines(path)) {
    expect(batch[0]).toBe('a')
    break
  }
})

test('the last whole line', () => {
  const long = `{"text":"${'é'.repeat(2 * MIB)}"}`
  const cases: [string, string | undefined][] = [
    ['', undefined],
    ['half', undefined],
    ['a\n', 'a'],
    ['\n', ''],
    ['a\nb\n', 'b'],
    ['a\nb\nhalf', 'b'],
    [`a\n${long}\n`, long],
    [`${long}\n`, long],
    [`a\n${long}`, 'a'],
    [`${'x'.repeat(MIB - 1)}\n${'y'.repeat(MIB - 1)}\n`, 'y'.repeat(MIB - 1)]
  ]
  for (const [content, line] of cases) expect(lastLine(put('a.jsonl', content))).toBe(line)
  expect(lastLine(join(folder, 'none.jsonl'))).toBeUndefined()
})

test('the search for the last line ends after 64 MiB', () => {
  const path = put('a.jsonl', Buffer.concat([Buffer.from('a\n'), Buffer.alloc(65 * MIB, 'x')]))
  expect(() => lastLine(path)).toThrow(expect.objectContaining({ code: 'VAULT_DAMAGED' }))
})
