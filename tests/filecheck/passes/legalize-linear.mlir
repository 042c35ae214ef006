// RUN: quartic-opt %s -p legalize-linear --split-input-file | filecheck %s

// CHECK-LABEL: @image
func.func @image(%x: tensor<2x1x2x2x!qnn.int<8, 0.5, 1>>, %s: tensor<1xf32>, %b: tensor<1xf32>) -> tensor<2x1xf32> {
  // CHECK-NEXT: %0 = qnn.constant dense<{{.*}}1, 2], [3, 4{{.*}}> : tensor<1x1x2x2xi8>
  // CHECK-NEXT: %1 = qnn.conv2d %x, %0, %s, %b : ({{.*}}) -> tensor<2x1x1x1xf32>
  // CHECK-NEXT: %2 = qnn.reshape %1 : tensor<2x1x1x1xf32> -> tensor<2x1xf32>
  // CHECK-NEXT: func.return %2
  %w = qnn.constant dense<[[1, 2, 3, 4]]> : tensor<1x4xi8> : tensor<1x4xi8>
  %0 = qnn.reshape %x : tensor<2x1x2x2x!qnn.int<8, 0.5, 1>> -> tensor<2x4x!qnn.int<8, 0.5, 1>>
  %1 = qnn.linear %0, %w, %s, %b : (tensor<2x4x!qnn.int<8, 0.5, 1>>, tensor<1x4xi8>, tensor<1xf32>, tensor<1xf32>) -> tensor<2x1xf32>
  func.return %1 : tensor<2x1xf32>
}

// -----

// CHECK-LABEL: @pixel
func.func @pixel(%x: tensor<2x4x1x1x!qnn.int<8, 0.5, 1>>, %s: tensor<1xf32>) -> tensor<2x1xf32> {
  // CHECK: qnn.reshape
  // CHECK-NEXT: qnn.linear
  %w = qnn.constant dense<[[1, 2, 3, 4]]> : tensor<1x4xi8> : tensor<1x4xi8>
  %0 = qnn.reshape %x : tensor<2x4x1x1x!qnn.int<8, 0.5, 1>> -> tensor<2x4x!qnn.int<8, 0.5, 1>>
  %1 = qnn.linear %0, %w, %s : (tensor<2x4x!qnn.int<8, 0.5, 1>>, tensor<1x4xi8>, tensor<1xf32>) -> tensor<2x1xf32>
  func.return %1 : tensor<2x1xf32>
}
