import { statSync, truncateSync } from 'node:fs'
import { afterEach, describe, expect, it } from 'vitest'
import { type BookAt, bookAt, openVault } from '../../src/l3cap.ts'
import { at, MadeVault, START_US } from './maker.ts'

let made: MadeVault

afterEach(() => made.remove())

/** What the vault says of a moment: the orders or levels, and why not to trust it. */
async function ask(seconds: number | 'latest'): Promise<[book: string, kind: string]> {
  const state = await stateAt(seconds)
  const rows = [false, true].map(isAsk => state.book.top(isAsk, 9).replaceAll('"', ''))
  return [rows.join(' '), state.reason?.kind ?? 'trusted']
}

function stateAt(seconds: number | 'latest'): Promise<BookAt> {
  return bookAt(openVault(made.path), { symbol: 'btc/usd', at: seconds === 'latest' ? 'latest' : at(seconds) })
}

const IMAGE = '[[100,2,0,1]] [[101,3,0,1]]'

describe('the book at a moment', () => {
  it('has all events up to it and none after it', async () => {
    made = new MadeVault().begin(1).order(3, 'change', '1', false, '100', '7').order(4, 'done', '2', true, '101', '3')
    made.order(5, 'open', '3', true, '102', '1')
    expect(await ask(2)).toEqual([IMAGE, 'trusted'])
    expect(await ask(2.999999)).toEqual([IMAGE, 'trusted'])
    expect(await ask(3)).toEqual(['[[100,7,0,1]] [[101,3,0,1]]', 'trusted'])
    expect(await ask(4.5)).toEqual(['[[100,7,0,1]] []', 'trusted'])
    expect(await ask(5)).toEqual(['[[100,7,0,1]] [[102,1,0,1]]', 'trusted'])
    const state = await stateAt(4.5)
    expect(state).toMatchObject({ level: 'l3', conn: 'c-1', eventUs: at(4), ageMs: 500, lines: 4, seqId: 3 })
    expect(state.syncedAt).toBe(new Date(at(1.5) / 1000).toISOString())
    expect(state.image).toMatch(/^raw\/bitfinex\/l3_events\/BTCUSD\/.*\.jsonl:1$/)
  })

  it('has whole frames only', async () => {
    made = new MadeVault()
      .begin(1)
      .order(3, 'change', '1', false, '100', '7', false)
      .order(3, 'open', '4', true, '105', '1')
    made.order(4, 'open', '5', true, '106', '1', false)
    expect((await ask(3))[0]).toBe('[[100,7,0,1]] [[101,3,0,1],[105,1,0,1]]')
    expect((await ask(4))[0]).toBe('[[100,7,0,1]] [[101,3,0,1],[105,1,0,1]]')
  })

  it('reduces what a match took', async () => {
    made = new MadeVault()
      .begin(1)
      .order(2, 'match', '1', false, '100', '0.5')
      .order(3, 'match', '1', false, '100', '1.5')
    expect((await ask(2))[0]).toBe('[[100,1.5,0,1]] [[101,3,0,1]]')
    expect((await ask(3))[0]).toBe('[] [[101,3,0,1]]')
  })

  it('of price levels', async () => {
    made = new MadeVault({ level: 'l2' }).begin(1).update(2, '[["99.5","4","0",null]]', '[["101.0","0.00","0",null]]')
    made.mark(3, 'gap', 'sequence')
    expect(await ask(1.7)).toEqual([IMAGE, 'trusted'])
    expect(await ask(2)).toEqual(['[[100,2,0,1],[99.5,4,0,null]] []', 'trusted'])
    expect((await ask(3))[1]).toBe('gap')
    expect(await stateAt(2)).toMatchObject({ level: 'l2', seqId: 5 })
  })

  it('is read from compressed hours, and from those that are there twice', async () => {
    made = new MadeVault().begin(1).order(3, 'change', '1', false, '100', '7')
    made.compress('l3_events', START_US, true)
    expect(await ask(3)).toEqual(['[[100,7,0,1]] [[101,3,0,1]]', 'trusted'])
    made.order(5, 'open', '9', false, '99', '1')
    expect(await ask(5)).toEqual(['[[100,7,0,1],[99,1,0,1]] [[101,3,0,1]]', 'trusted'])
  })
})

describe('is not trusted', () => {
  it('before the first image', async () => {
    made = new MadeVault().begin(10)
    expect(await ask(5)).toEqual(['[] []', 'no_image'])
    expect((await stateAt(5)).reason).toMatchObject({ toUs: at(10.5), message: expect.stringContaining('no image') })
  })

  it('inside a gap, and between the last event and the gap that was found', async () => {
    made = new MadeVault().begin(1).order(3, 'change', '1', false, '100', '7').mark(9, 'gap', 'silence').image(20)
    made.order(21, 'done', '1', false, '100', '2')
    const kinds = await Promise.all([2, 3, 5, 9, 15, 19.9, 20, 20.5].map(async each => (await ask(each))[1]))
    expect(kinds).toEqual(['trusted', 'trusted', 'gap', 'gap', 'gap', 'gap', 'trusted', 'trusted'])
    expect((await stateAt(15)).reason).toMatchObject({ cause: 'silence', fromUs: at(9), toUs: at(20) })
    expect((await stateAt(5)).reason).toMatchObject({ cause: 'silence', fromUs: at(3), toUs: at(9) })
    expect((await ask(15))[0]).toBe('[[100,7,0,1]] [[101,3,0,1]]')
  })

  it('while no process captured', async () => {
    made = new MadeVault()
      .begin(1)
      .order(3, 'change', '1', false, '100', '7')
      .status(10, 'stopped', { reason: 'SIGTERM' })
    made.begin(20).order(22, 'done', '1', false, '100', '2').begin(30)
    const kinds = await Promise.all([9, 10, 15, 20.2, 21, 22, 25, 30, 30.4].map(async each => (await ask(each))[1]))
    expect(kinds).toEqual([
      'trusted',
      'stopped',
      'stopped',
      'stopped',
      'trusted',
      'trusted',
      'killed',
      'killed',
      'killed'
    ])
    expect((await stateAt(15)).reason).toMatchObject({ cause: 'SIGTERM', fromUs: at(10), toUs: at(20.5) })
  })

  it('after all that proves it', async () => {
    made = new MadeVault().begin(1).order(3, 'change', '1', false, '100', '7')
    expect((await ask(5))[1]).toBe('behind')
    expect((await stateAt('latest')).atUs).toBe(at(3))
    made
      .shot(4, (await stateAt(3)).book)
      .shot(8, (await stateAt(3)).book)
      .shot(10, (await stateAt(2)).book)
    // A snapshot of another book shows that events between were lost.
    const kinds = await Promise.all([5, 8, 8.1, 11].map(async each => (await ask(each))[1]))
    expect(kinds).toEqual(['trusted', 'trusted', 'behind', 'behind'])
    expect((await stateAt('latest')).atUs).toBe(at(8))
    expect((await ask('latest'))[1]).toBe('trusted')
  })

  it('by snapshots of another process', async () => {
    made = new MadeVault().begin(1).order(3, 'change', '1', false, '100', '7')
    const { book } = await stateAt(3)
    made.shot(6, book).begin(20).shot(22, book)
    const kinds = await Promise.all([3.5, 6, 6.1, 10].map(async each => (await ask(each))[1]))
    expect(kinds).toEqual(['trusted', 'trusted', 'killed', 'killed'])
  })

  it('where the status of a fresh image is missing', async () => {
    made = new MadeVault().begin(1).order(3, 'change', '1', false, '100', '7').begin(20)
    made.edit('status', START_US, lines => lines.slice(0, 2).concat('')).shot(22, (await stateAt(3)).book)
    expect([(await ask(3))[1], (await ask(10))[1], (await ask(20.5))[1]]).toEqual(['trusted', 'behind', 'trusted'])
  })

  it('after a checksum that did not match, until the next image', async () => {
    made = new MadeVault().begin(1).status(2, 'checksum_mismatch', { expected: 1, computed: 2 })
    made.order(3, 'change', '1', false, '100', '7').image(4).order(5, 'done', '1', false, '100', '7')
    const kinds = await Promise.all([1.9, 2, 3, 3.5, 4, 4.5].map(async each => (await ask(each))[1]))
    expect(kinds).toEqual(['trusted', 'checksum', 'checksum', 'checksum', 'trusted', 'trusted'])
  })
})

describe('over the border of an hour', () => {
  it('the book lives on until the new file begins', async () => {
    made = new MadeVault().begin(3590).order(3599, 'change', '1', false, '100', '7').image(3600.5, 'hour', '7')
    made.order(3602, 'done', '2', true, '101', '3')
    expect(await ask(3600.2)).toEqual(['[[100,7,0,1]] [[101,3,0,1]]', 'trusted'])
    expect(await ask(3599.5)).toEqual(['[[100,7,0,1]] [[101,3,0,1]]', 'trusted'])
    expect((await ask(3601))[1]).toBe('trusted')
    expect((await stateAt(3601)).syncedAt).toBe(new Date(at(3590.5) / 1000).toISOString())
  })

  it('not where a file is missing', async () => {
    made = new MadeVault().begin(3590).order(3599, 'change', '1', false, '100', '7').image(7201, 'hour')
    made.shot(3610, (await stateAt(3599)).book)
    expect([(await ask(3599))[1], (await ask(3599.5))[1]]).toEqual(['trusted', 'hour_missing'])
    expect([(await ask(3605))[1], (await ask(7200.5))[1], (await ask(7201))[1]]).toEqual([
      'hour_missing',
      'hour_missing',
      'trusted'
    ])
  })

  it('not where a file has lost its first lines', async () => {
    made = new MadeVault().begin(3590).order(3599, 'change', '1', false, '100', '7').image(3600.5, 'hour', '7')
    made.order(3602, 'done', '2', true, '101', '3').order(3603, 'change', '1', false, '100', '8')
    made.edit('l3_events', at(3600), lines => lines.slice(3))
    expect([(await ask(3600.2))[1], (await ask(3602))[1]]).toEqual(['hour_missing', 'damaged'])
  })
})

describe('damage', () => {
  const broken = async (change: (lines: string[]) => string[]) => {
    made = new MadeVault().begin(1).order(3, 'open', '3', false, '99', '1').order(4, 'change', '3', false, '99', '2')
    made.order(5, 'done', '1', false, '100', '2').image(10).order(11, 'done', '2', true, '101', '3')
    made.edit('l3_events', START_US, change)
    return Promise.all([2, 3.5, 4.5, 9, 10.5].map(async each => (await ask(each))[1]))
  }

  it.each<[string, (lines: string[]) => string[], string[]]>([
    [
      'a broken line',
      lines => lines.with(3, `${lines[3]!.slice(0, 40)}`),
      ['damaged', 'damaged', 'damaged', 'damaged']
    ],
    ['a missing line', lines => lines.toSpliced(3, 1), ['trusted', 'trusted', 'damaged', 'damaged']],
    ['a doubled line', lines => lines.toSpliced(3, 0, lines[3]!), ['trusted', 'damaged', 'damaged', 'damaged']],
    [
      'a price that is none',
      lines => lines.with(4, lines[4]!.replace('"99"', '"9x"')),
      ['trusted', 'trusted', 'damaged', 'damaged']
    ],
    [
      'a time that leaps',
      lines => lines.with(3, lines[3]!.replace('"recv_us":17640000', '"recv_us":17640009')),
      ['damaged', 'damaged', 'damaged', 'damaged']
    ]
  ])('%s is told until the next image', async (_, change, kinds) => {
    expect(await broken(change)).toEqual([...kinds, 'trusted'])
  })

  it('of an image makes none of it', async () => {
    made = new MadeVault().begin(1).order(3, 'change', '1', false, '100', '7').mark(5, 'gap', 'silence').image(6)
    made.order(8, 'done', '2', true, '101', '3')
    const spoil = (line: string) => line.replace('"recv_us":1764', '"recv_us":1765')
    made.edit('l3_events', START_US, lines => lines.with(6, spoil(lines[6]!)))
    expect([(await ask(3))[1], (await ask(6))[1], (await ask(7))[1]]).toEqual(['trusted', 'gap', 'gap'])
  })

  it('of the first image of an hour leaves none to the hour', async () => {
    made = new MadeVault().begin(3590).order(3599, 'change', '1', false, '100', '7').image(3600.5, 'hour', '7')
    made.edit('l3_events', at(3600), lines => lines.slice(0, 2).concat(''))
    expect([(await ask(3600.2))[1], (await ask(3602))[1]]).toEqual(['hour_missing', 'no_image'])
  })

  it('of the end of a file is told', async () => {
    const cut = (lines: string[]) => lines.slice(0, -2).concat('')
    const make = () =>
      new MadeVault()
        .begin(3590)
        .order(3598, 'change', '1', false, '100', '7')
        .order(3599, 'open', '3', false, '99', '1')
    made = make()
    const { book } = await stateAt(3599)
    const hour = (vault: MadeVault) =>
      vault.mark(3600.5, 'clear', 'hour', false).order(3600.5, 'snapshot', '1', false, '100', '7', false)
    hour(made).order(3600.5, 'snapshot', '2', true, '101', '3', false).order(3600.5, 'snapshot', '3', false, '99', '1')
    expect([(await ask(3598.5))[1], (await ask(3599.5))[1]]).toEqual(['trusted', 'trusted'])
    made.edit('l3_events', START_US, cut).edit('l3_events', at(3599), lines => lines)
    expect([(await ask(3598))[1], (await ask(3599.5))[1]]).toEqual(['trusted', 'hour_missing'])
    made.remove()
    made = make().shot(3599.3, book).status(3599.5, 'stopped', { reason: 'SIGTERM' })
    expect((await ask(3599.4))[1]).toBe('trusted')
    made.edit('l3_events', START_US, cut)
    expect([(await ask(3598))[1], (await ask(3598.5))[1], (await ask(3599.4))[1]]).toEqual([
      'trusted',
      'damaged',
      'damaged'
    ])
    made.remove()
    made = make().status(3599.5, 'stopped', { reason: 'SIGTERM' })
    made.edit('l3_events', START_US, lines => lines.slice(0, -2).concat(lines.at(-2)!.slice(0, 50)))
    expect([(await ask(3598))[1], (await ask(3599.4))[1]]).toEqual(['trusted', 'damaged'])
  })

  it('of a gap that status tells of all the same', async () => {
    made = new MadeVault().begin(1).order(3, 'change', '1', false, '100', '7').order(9, 'done', '1', false, '100', '7')
    made
      .status(4, 'gap', { channel: 'trades', cause: 'trades' })
      .status(5, 'gap', { reason: 'silence', cause: 'silence' })
    expect([(await ask(4.5))[1], (await ask(5.5))[1], (await ask(9))[1]]).toEqual(['trusted', 'gap', 'gap'])
  })

  it('of status is told, as it may have told of a loss', async () => {
    made = new MadeVault().begin(1).status(4, 'checksum_mismatch', { expected: 1, computed: 2 })
    made.order(6, 'change', '1', false, '100', '7').image(9).order(10, 'done', '2', true, '101', '3')
    made.edit('status', START_US, lines => lines.with(2, '\0'.repeat(30)))
    expect([(await ask(6))[1], (await ask(9))[1], (await ask(10))[1]]).toEqual(['damaged', 'trusted', 'trusted'])
  })

  it('of a compressed file is told', async () => {
    made = new MadeVault().begin(1).order(3, 'open', '3', false, '99', '1')
    made.compress('l3_events', START_US).edit('status', START_US, lines => lines)
    const path = `${made.file('l3_events', START_US)}.gz`
    truncateSync(path, statSync(path).size - 9)
    expect((await ask(3))[1]).toBe('damaged')
  })
})

it('is refused where the vault has no such instrument, or no events', async () => {
  made = new MadeVault().status(1, 'started')
  await expect(ask(1)).rejects.toMatchObject({ code: 'USAGE', message: expect.stringContaining('no book events') })
  await expect(bookAt(openVault(made.path), { symbol: 'X', at: 1 })).rejects.toMatchObject({ code: 'USAGE' })
  await expect(bookAt(openVault(made.path), { symbol: 'BTCUSD', at: 'soon' })).rejects.toMatchObject({ code: 'USAGE' })
})
