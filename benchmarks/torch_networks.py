"""The networks of `udh_jax.models` in PyTorch, with timm's names, for side-by-side timings."""

import torch
from torch import nn

STAGES = (  # of MobileNetV2: expansion, channels, blocks, stride of the first block
  (1, 16, 1, 1),
  (6, 24, 2, 2),
  (6, 32, 3, 2),
  (6, 64, 4, 2),
  (6, 96, 3, 1),
  (6, 160, 3, 2),
  (6, 320, 1, 1),
)


def create(name: str, num_classes: int) -> nn.Module:
  """A network with random weights, from ``[b, 3, h, w]`` to logits."""
  networks = {
    "mobilenetv2_100": MobileNet,
    "resnet50": ResNet50,
    "vit_small_patch16_224": VisionTransformer,
  }
  return networks[name](num_classes)


class InvertedResidual(nn.Module):
  """Inverted residual, with timm's names."""

  def __init__(self, inputs, outputs, expansion, stride):
    super().__init__()
    wide = inputs * expansion
    self.expands, self.adds = expansion != 1, stride == 1 and inputs == outputs
    self.conv_dw = nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False)
    if self.expands:
      self.conv_pw, self.bn1 = nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide)
      self.bn2 = nn.BatchNorm2d(wide)
      self.conv_pwl, self.bn3 = nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
    else:
      self.bn1 = nn.BatchNorm2d(wide)
      self.conv_pw, self.bn2 = nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
    self.act = nn.ReLU6(inplace=True)

  def forward(self, images):
    """Maps ``[b, c, h, w]`` to ``[b, outputs, h / stride, w / stride]``."""
    if self.expands:
      hidden = self.act(self.bn1(self.conv_pw(images)))
      hidden = self.act(self.bn2(self.conv_dw(hidden)))
      hidden = self.bn3(self.conv_pwl(hidden))
    else:
      hidden = self.bn2(self.conv_pw(self.act(self.bn1(self.conv_dw(images)))))
    return hidden + images if self.adds else hidden


class MobileNet(nn.Module):
  """MobileNetV2, with timm's names."""

  def __init__(self, num_classes):
    super().__init__()
    self.conv_stem, self.bn1 = nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32)
    channels, stages = 32, []
    for expansion, outputs, blocks, stride in STAGES:
      stage = []
      for block in range(blocks):
        stage.append(InvertedResidual(channels, outputs, expansion, stride if block == 0 else 1))
        channels = outputs
      stages.append(nn.Sequential(*stage))
    self.blocks = nn.Sequential(*stages)
    self.conv_head, self.bn2 = nn.Conv2d(320, 1280, 1, bias=False), nn.BatchNorm2d(1280)
    self.classifier, self.act = nn.Linear(1280, num_classes), nn.ReLU6(inplace=True)

  def forward(self, images):
    """Maps ``[b, 3, h, w]`` to logits."""
    hidden = self.blocks(self.act(self.bn1(self.conv_stem(images))))
    return self.classifier(self.act(self.bn2(self.conv_head(hidden))).mean((2, 3)))


class Bottleneck(nn.Module):
  """1 x 1, 3 x 3, 1 x 1 with a residual, with timm's names."""

  def __init__(self, inputs, width, stride):
    super().__init__()
    self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
    self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
    self.bn2 = nn.BatchNorm2d(width)
    self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
    self.act = nn.ReLU(inplace=True)
    self.downsample = None
    if stride != 1 or inputs != 4 * width:
      short = nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)
      self.downsample = nn.Sequential(short, nn.BatchNorm2d(4 * width))

  def forward(self, images):
    """Maps ``[b, c, h, w]`` to ``[b, 4 width, h / stride, w / stride]``."""
    hidden = self.act(self.bn1(self.conv1(images)))
    hidden = self.bn3(self.conv3(self.act(self.bn2(self.conv2(hidden)))))
    return self.act(hidden + (images if self.downsample is None else self.downsample(images)))


class ResNet50(nn.Module):
  """ResNet-50, with timm's names."""

  def __init__(self, num_classes):
    super().__init__()
    self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
    self.act, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
    channels = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
      width, layers = 64 * 2**stage, []
      for block in range(blocks):
        layers.append(Bottleneck(channels, width, 2 if stage and not block else 1))
        channels = 4 * width
      setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
    self.fc = nn.Linear(channels, num_classes)

  def forward(self, images):
    """Maps ``[b, 3, h, w]`` to logits."""
    hidden = self.maxpool(self.act(self.bn1(self.conv1(images))))
    hidden = self.layer4(self.layer3(self.layer2(self.layer1(hidden))))
    return self.fc(hidden.mean((2, 3)))


class VisionTransformer(nn.Module):
  """ViT-S/16 for images of 224 px."""

  def __init__(self, num_classes, width=384, depth=12, heads=6):
    super().__init__()
    self.proj = nn.Conv2d(3, width, 16, 16)
    self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
    self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 197, width))
    layer = nn.TransformerEncoderLayer(
      width, heads, 4 * width, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True
    )
    self.blocks = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
    self.norm, self.head = nn.LayerNorm(width, 1e-6), nn.Linear(width, num_classes)

  def forward(self, images):
    """Maps ``[b, 3, 224, 224]`` to logits."""
    patches = self.proj(images).flatten(2).transpose(1, 2)
    head = self.cls_token.expand(len(images), -1, -1)
    tokens = torch.cat([head, patches], dim=1) + self.pos_embed
    return self.head(self.norm(self.blocks(tokens))[:, 0])
