"""Draws docs/images/critters.png: the first critters that make a colourful sheet.

Run from the root of the repository: python docs/images/make_critters_sheet.py
"""

from pathlib import Path

from PIL import Image

from captionkit.data.critters import attributes, draw

COLUMNS, ROWS, SIZE = 8, 5, 120
BACKGROUNDS = ("meadow", "night", "beach", "snow")


def main() -> None:
    sheet = Image.new("RGB", (COLUMNS * SIZE, ROWS * SIZE))
    critters = dict(enumerate(attributes()))
    placed = {}
    for row in range(ROWS):
        for column in range(COLUMNS):
            background = BACKGROUNDS[(column + 2 * row) % 4]
            beside = {
                neighbour.colour
                for place in ((row, column - 1), (row - 1, column), (row - 1, column - 1))
                if (neighbour := placed.get(place))
            }
            index = next(
                i
                for i, critter in critters.items()
                if critter.background == background and critter.colour not in beside
            )
            placed[row, column] = critters.pop(index)
            picture = draw(placed[row, column], SIZE, variation=index)
            sheet.paste(picture, (column * SIZE, row * SIZE))
    # 256 colours: a third of the bytes, and dithering keeps the skies smooth
    palette = sheet.quantize(256, Image.Quantize.MEDIANCUT, kmeans=4)
    sheet = sheet.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    sheet.save(Path(__file__).with_name("critters.png"), optimize=True)


if __name__ == "__main__":
    main()
