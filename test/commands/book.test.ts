import { spawnSync } from 'node:child_process'
import { afterEach, beforeAll, expect, it } from 'vitest'
import { ensureBuilt } from '../helpers/vault.ts'
import { at, MadeVault } from '../replay/maker.ts'

let made: MadeVault

beforeAll(() => ensureBuilt())
afterEach(() => made.remove())

const time = (seconds: number) => new Date(at(seconds) / 1000).toISOString()

function book(...words: string[]): { code: number | null; out: string; err: string } {
  const all = ['bin/l3cap.js', 'book', '--vault', made.path, '--symbol', 'BTC/USD', ...words]
  const { status, stdout, stderr } = spawnSync(process.execPath, all, { encoding: 'utf8' })
  return { code: status, out: stdout, err: stderr }
}

function ladder(): MadeVault {
  return new MadeVault()
    .begin(1)
    .order(3, 'open', '3', false, '100', '0.5')
    .order(4, 'open', '4', true, '103', '1')
    .order(5, 'open', '5', false, '99.5', '1')
    .mark(9, 'gap', 'sequence')
    .image(20)
}

it('shows the ladder, its orders and where it came from', () => {
  made = ladder()
  const { code, out } = book('--at', time(5), '--orders')
  expect(code).toBe(0)
  expect(out.split('\n')).toEqual([
    `bitfinex BTCUSD l3 at ${time(5).replace('Z', '000Z')}: trusted`,
    `  synced_at ${time(1.5)}, last event 0.000 s before, seqId 4`,
    '',
    '       price  size  orders  cumulative',
    '  ask    103     1       1           4',
    '                 1                      4',
    '  ask    101     3       1           3',
    '                 3                      2',
    '  --- spread 1, mid 100.5',
    '  bid    100   2.5       2         2.5',
    '                 2                      1',
    '               0.5                      3',
    '  bid   99.5     1       1         3.5',
    '                 1                      5',
    '',
    expect.stringMatching(/^from the image at raw\/bitfinex\/.*:1 and 5 lines, the last of c-1 frame 4$/),
    ''
  ])
  expect(book('--at', time(5), '--depth', '1').out).not.toContain('103')
})

it('says first when it is not to be trusted, and exits with 1', () => {
  made = ladder()
  const { code, out, err } = book('--at', time(10))
  expect(code).toBe(1)
  expect(out).toMatch(/^NOT TRUSTED: inside a gap \(sequence\) from /)
  expect(out).toContain('bid    100   2.5')
  expect(err).toContain('inside a gap (sequence)')
  expect(book().err).toContain('the newest moment that the vault proves')
})

it('prints one object with --json', () => {
  made = ladder()
  const { code, out } = book('--at', `${time(3).slice(0, -1)}007Z`, '--json', '--depth', '1', '--orders')
  expect(code).toBe(0)
  expect(JSON.parse(out)).toMatchObject({
    exchange: 'bitfinex',
    level: 'l3',
    at_us: at(3) + 7,
    trusted: true,
    reason: null,
    bids_top1: [['100', '2.5', '0', '2']],
    asks_top1: [['101', '3', '0', '1']],
    mid_price: '100.5',
    synced_at: time(1.5),
    age_ms: 0.007,
    stats: { total_orders: 3, spread: '1' },
    bid_orders: [
      ['1', '100', '2'],
      ['3', '100', '0.5']
    ]
  })
  const gap = JSON.parse(book('--at', time(10), '--json').out)
  expect(gap).toMatchObject({
    trusted: false,
    reason: { kind: 'gap', cause: 'sequence', to: time(20).replace('Z', '000Z') }
  })
})

it('refuses what makes no sense, all at once', () => {
  made = new MadeVault({ level: 'l2' }).begin(1)
  const { code, err } = book('--at', 'noon', '--depth', '0')
  expect(code).toBe(2)
  expect(err).toMatch(/--at must be .*\n--depth must be /)
  expect(book('--at', time(1.5), '--orders').code).toBe(2)
  expect(book('--at', time(1.5)).code).toBe(0)
  expect(book('--exchange', 'okx').err).toContain('exchange okx: the vault holds bitfinex')
})
